"""The reference decoder on every path, and defects planted in it, are traced as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from few import few

from kvparity.controls.attended import uniform_attention, wrong_donor
from kvparity.controls.cache import narrow_cache, stale_slot
from kvparity.controls.rope import position_off_by_one
from kvparity.controls.sequence import padding_leaks
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.trace.tracing import Trace, trace_side
from kvparity.subjects.base import Subject
from kvparity.subjects.registry import factory
from kvparity_contracts import Contract
from kvparity_contracts.paths import PathName

WINDOW = 6
CONFIG = {
    "vocab_size": 128, "hidden_size": 32, "layers": 4, "heads": 2, "kv_heads": 1, "head_dim": 16,
    "intermediate_size": 32, "max_positions": 64, "sliding_window": WINDOW,
    "layer_types": ["sliding", "full", "sliding", "full"], "kv_shared_layers": 2,
    "attention_softcap": 20.0, "attention_sinks": True,
}  # fmt: skip
ORDER = {"split": 32, "tile": 16, "block_m": 16}


@cache
def setting(execution: str, kv_cache: str, ring: bool) -> Setting:
    subject: dict[str, Any] = {"kind": "decoder", "config": CONFIG, "order": ORDER}
    if ring:
        subject["cache"] = {"layout": "head-slot", "ring": True}
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "decoder",
            "seed": 5,
            "subject": subject,
            "numerics": {"execution": execution, "kv_cache": kv_cache},
            "workloads": [{"name": "one", "prompt_tokens": [3, 11], "generate": 3}],
            "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
            "controls": ["stale-slot"],
        }
    )
    model = factory("decoder")(
        contract.subject, execution=execution, kv_cache=kv_cache, device=torch.device("cpu"),
        seed=5, base=Path(),
    )  # fmt: skip
    return Setting(contract, model)


def traced(
    path: str = "decode",
    plant: Callable[[Subject], Subject] | None = None,
    *,
    numerics: tuple[str, str] = ("float32", "float32"),
    ring: bool = False,
) -> Trace:
    own = setting(*numerics, ring)
    plans = own.plans("one")
    prompts = plans.prompts
    tokens = [[(5 * i + 3 * n) % 128 for n in range(prompts.length(i))] for i in range(2)]
    planted = own.subject if plant is None else plant(own.subject)
    return trace_side(PathRun(own, planted, plans, PathName.parse(path), tokens))


@pytest.mark.parametrize(
    "path",
    few(
        ["prefill", "decode", "chunked(4)", "mixed", "paged(16)", "padded-left", "prefix-paged(2)",
         "streamed(3)", "batched", "permuted", "padded-right", "reset", "prefix(2)", "verify(2)",
         "uncached"],
        7,
    ),
)  # fmt: skip
def test_the_decoder_holds_on_every_path(path: str) -> None:
    trace = traced(path)
    assert trace.judgement.outcome == "holds", trace.judgement.reason
    silent = {name for name, count in trace.judgement.said.items() if not count}
    assert not silent
    last = trace.lines[-1].layers
    assert [seen.keys for seen in last] == [WINDOW, last[1].length] * 2
    assert [seen.donors for seen in last] == [(0,), (1,), (0,), (1,)]


@pytest.mark.parametrize(
    ("execution", "kv_cache"),
    [
        ("bfloat16", "bfloat16"),
        ("float32", "bfloat16"),
        ("float16", "fp8_e4m3(head)"),
        ("bfloat16", "int8(16)"),
        ("float32", "int4(16)"),
    ],
)
def test_the_decoder_holds_with_every_kind_of_store(execution: str, kv_cache: str) -> None:
    trace = traced("streamed(4)", numerics=(execution, kv_cache), ring=True)
    assert trace.judgement.outcome == "holds", trace.judgement.reason


def test_pads_that_count_as_tokens_are_told_as_they_are() -> None:
    judgement = traced("padded-left", padding_leaks).judgement
    assert judgement.broken[0].sentence == "position 10 was computed at place 2 of the sequence"


@pytest.mark.parametrize(
    ("plant", "name", "words"),
    [
        (position_off_by_one, "positions advance by one", "goes from 2 to 4"),
        (wrong_donor, "a layer reads its owner's cache", "of stored layer 0, expected 1"),
        (uniform_attention, "weights follow the scores", "attention is uniform over 3 keys"),
        (stale_slot, "keys and values are as written", "1 of 4 keys and values are not those"),
        (narrow_cache, "keys and values are as written", "3 of 4 keys and values are not those"),
    ],
)
def test_a_defect_planted_in_the_decoder_breaks_its_invariant(
    plant: Callable[[Subject], Subject], name: str, words: str
) -> None:
    judgement = traced("decode", plant).judgement
    assert judgement.outcome == "differs"
    assert words in next(b.sentence for b in judgement.broken if b.invariant == name)

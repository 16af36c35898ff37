"""Attention subjects over stored codes, windows, soft caps and layouts; used again, and shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from few import few
from store_settings import HERE, WIDE, outcomes, results, setting

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.path_run import PathRun, Setting
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.pair.subject import build
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import Attention

OWN = {
    "prefill": "kvparity_kernels.attention:prefill",
    "decode": "kvparity_kernels.attention:decode",
    "heads": {"query": 2, "kv": 2, "dim": 16},
    "order": {"split": 32, "tile": 16, "block_m": 16},
}
STORES = ["bfloat16", "fp8_e4m3(tensor)", "fp8_e5m2(head)", "int8(8)", "int4(16)"]


def all_hold(found: Setting) -> None:
    seen = results(found)
    assert {n: r.reason for n, r in seen.items() if r.outcome != "holds"} == {}
    assert seen


@pytest.mark.parametrize(
    ("store", "layout"),
    [
        *((store, "slot-head") for store in STORES),
        ("float32", "head-slot"),
        (STORES[3], "head-slot"),
    ],
)
def test_our_own_kernels_hold_over_every_store(store: str, layout: str) -> None:
    """Float64 is computed from the stored data, so the limits are float32's, whatever it is."""
    paths = ["decode", "streamed(7)", "uncached", "prefix(16)", "batched"]
    all_hold(setting(OWN, store, paths, layout=layout))


@pytest.mark.parametrize("store", ["float32", "int8(8)"])
def test_our_own_kernels_hold_with_a_window_and_a_soft_cap(store: str) -> None:
    all_hold(setting(OWN, store, ["decode", "chunked(5)", "uncached"], window=7, softcap=2.0))


@pytest.mark.parametrize("more", [{}, {"window": 5}, {"softcap": 1.5}])
@pytest.mark.parametrize("store", few(["float32", *STORES], 3))
def test_a_foreign_pair_holds_on_every_path(store: str, more: dict[str, Any]) -> None:
    all_hold(setting(WIDE, store, **more))


@pytest.mark.parametrize(
    ("decode", "store", "more"),
    [
        ("decode_window_short", "float32", {"window": 5}),
        ("decode_window_long", "float32", {"window": 5}),
        ("decode_uncapped", "float32", {"softcap": 1.5}),
        ("decode_other_head", "fp8_e4m3(head)", {}),
        ("decode_without_scale", "fp8_e4m3", {}),
    ],
)
def test_a_pair_that_decodes_otherwise_differs(
    decode: str, store: str, more: dict[str, Any]
) -> None:
    pair = WIDE | {"decode": f"wide_pair.py:{decode}"}
    found = outcomes(setting(pair, store, ["decode", "chunked(5)"], **more))
    assert found["decode invariance"] == "differs"
    assert found["chunked(5) invariance"] == "holds"


def test_without_a_cache_nothing_else_is_computed() -> None:
    """Codes in the cache, and the same numbers fresh: the pair is not told of any format."""
    found = setting(WIDE, "int4(16)")
    names: list[set[str]] = []

    def spied(kernel: Any) -> Any:
        def called(call: Any) -> Any:
            names.append(set(call.keywords()))
            return kernel(call)

        return called

    pair = found.subject.pair  # type: ignore[attr-defined] # an AttentionSubject
    pair = type(pair)(spied(pair.prefill), spied(pair.decode), "p", "d")
    subject = found.subject.with_pair(pair)  # type: ignore[attr-defined] # likewise
    prompts = Prompts("w", ("w/0",), ((0,) * 9,), 3)
    rows = [
        PathRun(found, subject, WorkloadPlans(prompts, 1), PathName(path), [[0] * 12]).run()
        for path in ("prefill", "uncached")
    ]
    assert torch.equal(rows[0].digests, rows[1].digests)
    assert [("format" in one, "k_scale" in one) for one in names] == [(True, True), (False, False)]


CACHE = {"name": "held", "relation": "cache", "paths": ["decode", "streamed(7)", "reset"]}
LIVE = {"name": "live", "relation": "liveness", "paths": ["decode", "batched", "prefix(16)"]}


@pytest.mark.parametrize("store", few(["float32", *STORES], 2))
def test_caches_hold_what_was_written_and_every_key_lives(store: str) -> None:
    checks = [CACHE | {"paths": [*CACHE["paths"], "prefix(16)"]}, LIVE]
    all_hold(setting(WIDE, store, checks=checks, lengths=[40, 18]))


def test_our_own_kernels_depend_on_what_they_see_and_on_nothing_else() -> None:
    checks = [LIVE | {"paths": ["decode"]}]
    all_hold(setting(OWN, "int8(8)", checks=checks, lengths=[38], window=7))
    all_hold(setting(OWN, "fp8_e4m3", checks=checks, lengths=[18]))


@pytest.mark.parametrize(
    ("decode", "window", "words"),
    [
        ("decode_window_short", 5, "it is visible, and the row does not depend on it"),
        ("decode_window_long", 5, "it is hidden, and the row depends on it"),
        ("decode_blind_first", None, "position 0 of w/0 (row 41): it is visible"),
    ],
)
def test_a_dead_key_is_found(decode: str, window: int | None, words: str) -> None:
    pair = WIDE | {"decode": f"wide_pair.py:{decode}"}
    found = results(setting(pair, checks=[LIVE], lengths=[40, 18], window=window))
    assert found["decode liveness"].outcome == "differs"
    assert words in found["decode liveness"].reason


def test_a_pair_says_what_it_cannot_do() -> None:
    subject = setting(WIDE).subject
    whole, half = (Span(0, 0, 3, 3),), (Span(0, 3, 4, 3),)
    member = (Member("a", 4, 1),)
    assert subject.unsupported(Plan(member, (whole,), Layout(cached=False))) is None
    reason = subject.unsupported(Plan(member, (whole, half), Layout(cached=False)))
    assert reason == "without a cache, every sequence must be computed whole"
    assert "traced" in str(subject.unsupported(Plan(member, (whole,), Layout(program="exported"))))
    assert subject.unsupported(Plan(member, (), Layout(), actions=(Action(0, "reset"),))) is None
    model = Attention.model_validate({"kind": "attention", **WIDE})
    with pytest.raises(ValueError, match="24 does not divide it"):
        build(
            model,
            execution="float32",
            kv_cache="int8(24)",
            device=torch.device("cpu"),
            seed=0,
            base=HERE,
        )
    with pytest.raises(UnsupportedError, match="take pages"):
        PathRun(setting(WIDE), subject, WorkloadPlans(Prompts("w", ("w/0",), ((0,) * 20,), 3), 1),
             PathName("prefix-paged", 16), [[0] * 23]).run()  # fmt: skip

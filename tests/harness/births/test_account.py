"""Unmodified transformers models: where their paths part, and that this is all of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import recomputed
from few import few
from tiny_sides import LENGTHS, sides
from tiny_transformers import CONFIG, tiny

from kvparity.births.account import Account, account
from kvparity.births.causes import cause
from kvparity.births.document import map_of
from kvparity.births.picture import draw
from kvparity.controls.table import planting
from kvparity.subjects.hf.subject import build
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.paths import PREFILL
from kvparity_contracts.subjects import Transformers


@cache
def subject_of(kind: str, attention: str, dtype: str) -> Any:
    if kind == "qwen3":
        return tiny(attention, execution=dtype)
    config = {**CONFIG, "model_type": kind}
    model = Transformers(kind="transformers", config=config, attention=attention)
    return build(
        model, execution=dtype, kv_cache=dtype, device=torch.device("cpu"), seed=0, base=None
    )  # type: ignore[arg-type]


@cache
def found(kind: str, attention: str, dtype: str, path: str) -> Account:
    return account(*sides(subject_of(kind, attention, dtype), str(PREFILL), path))


@pytest.mark.parametrize(
    ("kind", "path"),
    few(
        [
            *(("qwen3", path) for path in ("decode", "generate", "chunked(4)", "padded-left")),
            *((kind, "decode") for kind in ("llama", "gemma3_text", "mixtral")),
        ],
        2,
    ),
)
def test_sdpa_in_bfloat16_is_located_and_the_account_is_complete(kind: str, path: str) -> None:
    got = found(kind, "sdpa", "bfloat16", path)
    assert got.differing
    assert got.complete
    assert got.explained == 1.0
    born = {each.operation for each in got.births}
    assert any(name.endswith("self_attn attention") for name in born)
    assert cause(got).kind == "reduction order"


def test_eager_in_float32_is_born_in_every_linear_layer_and_all_of_it_is_found() -> None:
    got = found("qwen3", "eager", "float32", "decode")
    assert got.complete
    born = {each.operation for each in got.births}
    for part in ("q_proj", "k_proj", "v_proj"):
        assert f"model.layers.0.self_attn.{part}" in born
    assert cause(got).kind == "reduction order"


def test_a_path_against_itself_has_no_births() -> None:
    first, second = sides(subject_of("qwen3", "sdpa", "bfloat16"), "decode", "decode")
    got = account(first, second)
    assert (got.differing, got.births, got.complete) == (0, (), False)
    assert got.operations > 20


BY_HAND = [
    *((kind, "sdpa", "bfloat16") for kind in ("qwen3", "llama", "gemma3_text", "mixtral")),
    ("qwen3", "eager", "float32"),
]


@pytest.mark.parametrize(("kind", "attention", "dtype"), BY_HAND)
def test_births_are_those_of_the_operation_computed_by_hand(
    kind: str, attention: str, dtype: str
) -> None:
    """On both shapes: all rows at once, and one row of a decode step."""
    subject, got = subject_of(kind, attention, dtype), found(kind, attention, dtype, "decode")
    reference, _ = sides(subject, str(PREFILL), "decode")
    prompts = {f"w/{n}": length for n, length in enumerate(LENGTHS)}
    born = [each for each in got.births if attention == "sdpa" or each.operation.endswith("proj")]
    by_hand = recomputed(subject, reference, born, prompts)
    assert by_hand.unlike == []
    assert by_hand.equal.total() >= 3
    assert bool(by_hand.equal["self_attn attention"]) is (attention == "sdpa")


def test_the_picture_has_a_square_for_each_birth() -> None:
    pytest.importorskip("matplotlib")
    text = draw(map_of(found("qwen3", "sdpa", "bfloat16", "decode")))
    assert "model.layers.0.self_attn attention" in text
    assert "born here" in text


@pytest.mark.parametrize("path", ["reset", "prefix(5)"])
def test_another_use_of_a_session_gives_no_births(path: str) -> None:
    """Other tokens before a reset are not compared; a prefix is its donor's work."""
    found = account(*sides(tiny("sdpa"), "prefill", path))
    assert found.births
    assert {each.operation.rpartition(" ")[2] for each in found.births} == {"attention"}
    assert cause(found).kind == "reduction order"


def test_a_module_that_layers_share_is_an_operation_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = tiny("sdpa")
    alone = account(*sides(subject, "prefill", "decode"))
    first, second = subject.model.model.layers
    monkeypatch.setitem(second.mlp._modules, "act_fn", first.mlp.act_fn)
    found = account(*sides(subject, "prefill", "decode"))
    assert alone.births
    assert found.by_operation() == alone.by_operation()


def test_rows_in_experts_are_no_tokens() -> None:
    more = {"num_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = {**CONFIG, **more, "model_type": "qwen3_moe"}
    model = Transformers(kind="transformers", config=config, attention="sdpa")
    cpu = torch.device("cpu")
    subject = build(
        model, execution="bfloat16", kv_cache="bfloat16", device=cpu, seed=0, base=Path()
    )
    found = account(*sides(subject, "prefill", "decode"))
    assert found.births
    assert not any(".experts." in operation for operation, _ in found.unlike)


def test_a_norm_of_heads_is_not_taken_for_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny("sdpa")
    norm = subject.model.model.layers[0].self_attn.q_norm
    own = norm.forward
    monkeypatch.setattr(norm, "forward", lambda x: own(x) * (1.5 if x.shape[1] == 1 else 1.0))
    found = account(*sides(subject, "prefill", "decode"))
    assert found.births[0].operation == "model.layers.0.self_attn.q_norm"
    assert cause(found).kind == "reduction order"


def test_a_module_called_query_is_no_position() -> None:
    found = account(*sides(tiny("sdpa"), "prefill", "decode"))
    born = tuple(replace(each, operation="h.0.attention.query") for each in found.births)
    assert cause(replace(found, births=born)).kind == "reduction order"


@pytest.mark.parametrize("control", ["window-one-short", "stale-slot", "top-p-renormalised"])
def test_the_cause_of_a_planted_defect_is_that_of_the_control(control: str) -> None:
    """In a model of which operations part by themselves, too."""
    config = {**CONFIG, "model_type": "mistral", "sliding_window": 6}
    model = Transformers(kind="transformers", config=config, attention="sdpa")
    cpu, float32 = torch.device("cpu"), "float32"
    subject = build(model, execution=float32, kv_cache=float32, device=cpu, seed=0, base=Path())
    first, second = sides(subject, "prefill", "decode")
    row = CONTROLS[control]
    found = account(first, replace(second, subject=planting(row).rollout(subject)))
    assert cause(found).kind == row.cause
    assert cause(found).part == row.born

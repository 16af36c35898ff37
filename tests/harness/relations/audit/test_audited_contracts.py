"""What of a contract is compiled: kinds of layers, formats, pages, orders; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import kernel_texts as texts
import pytest

from kvparity.relations.audit import contract as auditing
from kvparity.relations.audit import request as asking
from kvparity.relations.audit import side as sides
from kvparity.relations.audit.request import ARCHITECTURES, AuditError, Request, Shape, from_json
from kvparity.subjects.base import UnsupportedError
from kvparity_contracts import Contract
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, Tiles

CONFIG = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 4,
    "kv_heads": 2, "head_dim": 16, "max_positions": 64,
}  # fmt: skip
HEADS = {"query": 4, "kv": 2, "dim": 16}
OWN = {side: f"kvparity_kernels.attention:{side}" for side in ("prefill", "decode")}
DECODER = {"kind": "decoder", "preset": "tiny"}
INVARIANCE = {"relation": "invariance", "paths": ["decode"]}


def contract(subject: dict[str, Any], *checks: dict[str, Any], **numerics: Any) -> Contract:
    found = {
        "version": 1,
        "name": "audited",
        "subject": subject,
        "numerics": {"execution": "bfloat16", **numerics},
        "workloads": [{"name": "w", "prompt_tokens": [30], "generate": 2}],
        "checks": [{"name": f"c{n}", **c} for n, c in enumerate(checks or (INVARIANCE,))],
    }
    return Contract.model_validate(found)


def shapes(made: Contract, base: Path = Path(), **more: Any) -> list[Shape]:
    """Of the candidates; the references have no pages."""
    _, pairs = auditing.subject_shapes(made, base, **more)
    assert [one for one, _ in pairs] == [replace(other, page=0) for _, other in pairs]
    return [other for _, other in pairs]


@pytest.mark.parametrize(("cap", "seen"), [(None, False), (0.5, True), (30.0, True)])
def test_a_softcap_of_a_decoder_is_compiled(cap: float | None, seen: bool) -> None:
    config = CONFIG if cap is None else {**CONFIG, "attention_softcap": cap}
    (shape,) = shapes(contract({"kind": "decoder", "config": config}))
    assert (shape.softcap, shape.window, shape.sinks, shape.ring) == (seen, False, False, False)
    assert (shape.query_heads, shape.kv_heads, shape.head_dim) == (4, 2, 16)


def test_a_checkpoint_says_its_shape(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "model_type": "qwen3", "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
        "intermediate_size": 128, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": True,
    }))  # fmt: skip
    made = contract({"kind": "decoder", "checkpoint": "here"})
    (shape,) = shapes(made, tmp_path)
    assert (shape.query_heads, shape.kv_heads, shape.head_dim) == (8, 4, 32)
    with pytest.raises(UnsupportedError, match="no checkpoint folder"):
        shapes(made, folder)


@pytest.mark.parametrize(
    ("checks", "pages"),
    [
        ([INVARIANCE], [0]),
        ([{**INVARIANCE, "paths": ["decode", "paged(32)", "paged(16)"]}], [0, 16, 32]),
        ([{**INVARIANCE, "reference": "paged(8)"}], [0, 8]),
        ([{"relation": "cache", "reference": "paged(8)", "paths": ["decode"]}], [0, 8]),
        ([{**INVARIANCE, "paths": ["prefix(8)", "chunked(4)", "batched(4)"]}], [0]),
        ([{**INVARIANCE, "paths": ["prefix-paged(8)"]}], [0, 16]),
        (
            [
                INVARIANCE,
                {"relation": "accuracy", "limits": {"max_abs_dlogp": 0.5}, "paths": ["paged(16)"]},
            ],
            [0, 16],
        ),
    ],
)
def test_every_page_size_that_a_check_names_is_compiled(
    checks: list[dict[str, Any]], pages: list[int]
) -> None:
    assert [shape.page for shape in shapes(contract(DECODER, *checks))] == pages


def test_all_formats_or_those_asked_for() -> None:
    made = contract(DECODER, execution=["bfloat16", "float32"], kv_cache=["bfloat16", "int8(16)"])
    found = [(shape.execution, shape.kv_cache) for shape in shapes(made)]
    assert found == [
        ("bfloat16", "bfloat16"), ("bfloat16", "int8(16)"),
        ("float32", "bfloat16"), ("float32", "int8(16)"),
    ]  # fmt: skip
    (one,) = shapes(made, formats=[("float16", "fp8_e4m3(head)")])
    assert (one.execution, one.kv_cache) == ("float16", "fp8_e4m3(head)")


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (8, None), (None, 5.0)])
def test_rules_of_a_pair(window: int | None, softcap: float | None) -> None:
    rules = {n: v for n, v in (("window", window), ("softcap", softcap)) if v is not None}
    (shape,) = shapes(contract({"kind": "attention", **OWN, "heads": HEADS, **rules}))
    assert (shape.window, shape.softcap) == (window is not None, softcap is not None)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ({"kind": "decoder", "preset": "tiny", "attention": "sdpa"}, "has attention: sdpa"),
        ({"kind": "attention", **OWN, "decode": "mine:decode", "heads": HEADS}, "is .*mine:decode"),
        (
            {"kind": "transformers", "checkpoint": "x", "attention": "sdpa"},
            "kind transformers launches kernels",
        ),
    ],
)
def test_kernels_of_others_are_refused(subject: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        shapes(contract(subject))


def test_the_order_of_the_contract_or_the_default() -> None:
    assert auditing.subject_shapes(contract(DECODER), Path())[0] == ReductionOrder()
    other = {**DECODER, "order": {"split": 128, "tile": 32}}
    assert auditing.subject_shapes(contract(other), Path())[0] == ReductionOrder(split=128, tile=32)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Requests that were compiled, each into the texts of its side."""
    seen: list[Request] = []

    def compile_all(requests: list[Request], **more: object) -> list[Any]:
        seen.extend(requests)
        assert callable(more.pop("progress"))
        assert more == {"folder": Path("/kept"), "jobs": 3}
        return [texts.KERNELS if each.side == "prefill" else texts.SPLITS for each in requests]

    monkeypatch.setattr(sides, "compile_all", compile_all)
    return seen


@pytest.mark.parametrize("against", [None, {"block_m": 16}])
def test_decode_and_pages_are_held_against_prefill(
    compiled: list[Request], against: dict[str, int] | None
) -> None:
    made = contract(DECODER, {**INVARIANCE, "paths": ["paged(16)"]})
    found = auditing.audit_contract(
        made, Path(), ["sm_80", "sm_90"], against=against, folder=Path("/kept"), jobs=3
    )
    order = ReductionOrder()
    changed = replace(order, **(against or {}))
    seen = [(r.arch, r.comparison.right, r.order, r.candidate_order) for r in found]
    archs = ("sm_80", "sm_90")
    assert seen == [
        (a, f"decode{paged}", order, changed) for a in archs for paged in ("", ", pages of 16")
    ] + [(a, "prefill, pages of 16", order, order) for a in archs]
    assert {r.comparison.left for r in found} == {"prefill"}
    assert len(compiled) == len(set(compiled)) == 8
    assert [each.shape.page for each in found] == [0, 16, 0, 16, 16, 16]


def test_a_side_that_launches_other_kernels_is_refused() -> None:
    request = Request("decode", "sm_80", Shape(4, 2, 16))
    for kernels, words in ((texts.KERNELS, "launches prefill"), ((), "launches nothing")):
        with pytest.raises(AuditError, match=words):
            sides.read_side(request, kernels)
    prefill = replace(request, side="prefill", shape=replace(request.shape, page=16))
    assert sides.read_side(prefill, texts.KERNELS).label == "prefill, pages of 16"
    assert sides.read_side(request, texts.SPLITS).label == "decode"
    broken = replace(texts.KERNELS[0], ptx="no kernel")
    with pytest.raises(AuditError, match=r"^prefill for sm_80 is not readable: this PTX has no"):
        sides.read_side(prefill, [broken])


def test_tiles_in_force_are_asked_for_under_the_default_order_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Tiles(decode_block_m=16)
    rules = {("sm_90", "9.8", "float16"): found}
    monkeypatch.setattr(asking.rules, "triton_version", lambda: "9.8")
    monkeypatch.setattr(asking.rules, "in_force", lambda *asked: rules.get(asked, BASE))
    shape = Shape(4, 2, 16, execution="float16")
    assert Request("decode", "sm_90", shape).tiles == found
    assert Request("decode", "sm_80", shape).tiles == BASE
    assert Request("decode", "sm_90", replace(shape, execution="float32")).tiles == BASE
    assert Request("decode", "sm_90", shape, ReductionOrder(split=128)).tiles == BASE
    forced = Request("decode", "sm_90", shape, tiles=Tiles(skip_hidden=True))
    assert forced.tiles == Tiles(skip_hidden=True)
    assert from_json(forced.as_json()) == forced


def test_a_plain_shape_has_nothing_more() -> None:
    shape = Shape(4, 2, 16)
    assert (shape.page, shape.window, shape.softcap, shape.sinks, shape.ring) == (0,) + (False,) * 4
    assert str(shape) == "4/2 heads of 16, bfloat16, cache bfloat16"
    assert str(replace(shape, ring=True)).endswith("bfloat16, ring")
    assert ARCHITECTURES == {"sm_80": 80, "sm_90": 90, "sm_100": 100}

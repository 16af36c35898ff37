"""What a contract says of a pair, and the subject that comes of it, word by word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_pair import HEADS, PAIR, subject

from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.record.execute import run
from kvparity.subjects.pair.data import MIXED
from kvparity.subjects.pair.exact import exact, exact_pair, rounded
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.order import ReductionOrder

PLAIN = {
    "scale": 8**-0.5, "window": 0, "softcap": 0.0, "sinks": False, "sink_range": (0.0, 0.0),
    "alibi": False, "distances": 0, "latent": False, "causal": True,
    "window_size": None, "cross": None,
    "layout": "slot-head",
    "mixture": MIXED, "sharp": False, "strided": True, "empties": True, "order": None,
    "format": None, "kv_cache": torch.float32, "execution": torch.float32, "seed": 1,
}  # fmt: skip
ORDER = {"split": 32, "tile": 16}
CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "scale": ({"scale": 0.5}, {"scale": 0.5}),
    "window": ({"window": 9}, {"window": 9}),
    "softcap": ({"softcap": 1.5}, {"softcap": 1.5}),
    "sinks": ({"sinks": [-1, 3]}, {"sinks": True, "sink_range": (-1, 3)}),
    "alibi": ({"bias": {"kind": "alibi"}}, {"alibi": True}),
    "relative": ({"bias": {"kind": "relative", "distances": 5}}, {"distances": 5}),
    "causal": ({"causal": False}, {"causal": False}),
    "sides": (
        {"causal": False, "window_size": [3, -1]}, {"causal": False, "window_size": (3, -1)},
    ),
    "cross": ({"causal": False, "cross": [3, 9]}, {"causal": False, "cross": (3, 9)}),
    "layout": ({"layout": "head-slot"}, {"layout": "head-slot"}),
    "normal": ({"queries": "normal"}, {"mixture": None}),
    "sharp": ({"queries": "sharp"}, {"mixture": None, "sharp": True}),
    "inputs": ({"inputs": "contiguous"}, {"strided": False}),
    "empty": ({"empty": "never"}, {"empties": False}),
    "order": ({"order": ORDER}, {"order": ReductionOrder(**ORDER)}),
    "narrow": ({"kv_cache": "bfloat16"}, {"kv_cache": torch.bfloat16}),
    "half": (
        {"execution": "float16"}, {"execution": torch.float16, "kv_cache": torch.float16},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_one_thing_that_is_said_changes_one_thing(name: str) -> None:
    said, wanted = CHANGED[name]
    found = subject(**said)
    assert {key: getattr(found, key) for key in PLAIN} == PLAIN | wanted


@pytest.mark.parametrize(
    ("store", "static", "dtype"),
    [("fp8_e4m3(head)", True, torch.float8_e4m3fn), ("int8(4)", False, torch.int8)],
)
def test_codes_have_a_format(store: str, static: bool, dtype: torch.dtype) -> None:
    found = subject(kv_cache=store)
    assert found.format is not None
    assert (str(found.format), found.kv_cache, found.format.static) == (store, dtype, static)
    q, k, v = found.stored(Member("a", 4), range(1, 3))
    assert [x.dtype for x in (q, k, v)] == [torch.float32] * 3  # a reader gets numbers, not codes
    assert [len(x) for x in (q, k, v)] == [2, 3, 3]


def test_numbers_are_read_as_they_are_stored() -> None:
    q, k, v = subject(kv_cache="bfloat16").stored(Member("a", 4), range(1, 3))
    assert [x.dtype for x in (q, k, v)] == [torch.float32, torch.bfloat16, torch.bfloat16]


TOLD: dict[str, Any] = {
    "kind": "attention", "prefill": f"{PAIR}:prefill", "decode": f"{PAIR}:decode",
    "heads": HEADS | {"v_dim": 8}, "values": "own", "append": None, "out": "returned",
    "signature": None,
    "causal": True, "window_size": None, "cross": None,
    "scale": 8**-0.5, "order": None, "kv_cache": "float32", "layout": "slot-head", "page": None,
    "rows": "one", "window": None, "softcap": None, "sinks": None, "bias": None, "queries": "mixed",
    "inputs": "strided", "empty": "zero", "notes": [],
}  # fmt: skip
MLA = {"query": 4, "kv": 1, "dim": 12, "v_dim": 8}
CONTIGUOUS = "inputs: contiguous, so q, k and v were never views of a fused tensor"
NEVER = "empty: never, so no sequence without a token was given to the pair"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, {}),
        ({"window": 9}, {"window": 9}),
        ({"softcap": 1.5}, {"softcap": 1.5}),
        ({"sinks": [-1, 3]}, {"sinks": [-1, 3]}),
        ({"causal": False}, {"causal": False}),
        ({"causal": False, "window_size": [3, 0]}, {"causal": False, "window_size": [3, 0]}),
        ({"causal": False, "cross": [3, 9]}, {"causal": False, "cross": [3, 9]}),
        (
            {"heads": MLA, "values": "latent", "scale": 0.5},
            {"heads": MLA, "values": "latent", "scale": 0.5},
        ),
        ({"bias": {"kind": "alibi"}}, {"bias": {"kind": "alibi"}}),
        (
            {"bias": {"kind": "relative", "distances": 5}},
            {"bias": {"kind": "relative", "distances": 5}},
        ),
        ({"queries": "normal"}, {"queries": "normal"}),
        ({"queries": "sharp"}, {"queries": "sharp"}),
        ({"inputs": "contiguous"}, {"inputs": "contiguous", "notes": [CONTIGUOUS]}),
        ({"empty": "never"}, {"empty": "never", "notes": [NEVER]}),
        ({"kv_cache": "int4(8)"}, {"kv_cache": "int4(8)"}),
    ],
)
def test_what_a_subject_tells_of_itself(said: Mapping[str, Any], wanted: dict[str, Any]) -> None:
    assert subject(**said).describe() == TOLD | wanted
    told = subject(order=ORDER).describe()["order"]
    assert {key: told[key] for key in ORDER} == ORDER


def test_latent_values_are_the_first_columns_of_keys() -> None:
    """Queries and keys behind them are drawn as for a head of the columns that are left."""
    found = subject(heads=MLA, values="latent")
    positions = torch.arange(40)
    q, k, v = found.draw("a", positions)
    assert (q.shape, k.shape, v.shape) == ((40, 4, 12), (40, 1, 12), (40, 1, 8))
    assert torch.equal(v, k[..., :8])
    assert torch.equal(v, found.drawn("v", "a", positions))
    behind = subject(heads={"query": 4, "kv": 1, "dim": 4})
    assert torch.equal(q[..., 8:], behind.drawn("q", "a", positions))
    assert torch.equal(k[..., 8:], behind.drawn("k", "a", positions))
    assert float(v.abs().max()) < 4 < float(k.abs().max())
    alone = replace(found, heads=replace(found.heads, dim=8))
    assert torch.equal(alone.drawn("k", "a", positions), v)


LATER = ((Span(0, 0, 3, 3),), (Span(0, 3, 4, 3),))


@pytest.mark.parametrize(
    ("device", "layout", "more", "says"),
    [
        ("cpu", {}, {}, None),
        ("meta", {}, {}, None),
        ("cpu", {"far": True}, {}, None),
        ("meta", {"far": True}, {}, "memory of which few pages are touched is the CPU's, not me"),
        ("cpu", {"page": 4}, {}, "the pair is not declared to take pages"),
        ("cpu", {"batch": "left"}, {}, "a padded batch is not part of the attention pair's sign"),
        ("cpu", {"batch": "right"}, {}, "a padded batch is not part of"),
        ("cpu", {"program": "exported"}, {}, "a pair of kernels is called as it is, not through"),
        ("cpu", {}, {"generate": True}, "an attention subject generates no tokens"),
        ("cpu", {}, {"schedule": LATER}, None),
        ("cpu", {"cached": False}, {"schedule": LATER[:1]}, None),
        ("cpu", {"cached": False}, {"schedule": LATER}, "without a cache, every sequence must be"),
    ],
)
def test_what_a_pair_cannot_do(
    device: str, layout: dict[str, Any], more: dict[str, Any], says: str | None
) -> None:
    found = replace(subject(), device=torch.device(device))
    plan = Plan((Member("a", 4, 1),), (), Layout(**layout))
    reason = found.unsupported(replace(plan, **more))
    assert reason is None if says is None else str(reason).startswith(says)


@pytest.mark.parametrize("per", ["head", "tensor"])
def test_scales_are_between_two_bounds_and_larger_where_keys_are(per: str) -> None:
    heads = {"query": 64, "kv": 64, "dim": 8}
    found = subject(kv_cache=f"fp8_e4m3({per})", heads=heads)
    plain = replace(found, mixture=None)
    without = replace(found, mixture=replace(MIXED, extreme=False))
    for part in "kv":
        scale = plain.static_scale(part)
        assert scale is not None
        assert (scale.shape, scale.dtype, scale.is_contiguous()) == ((64,), torch.float32, True)
        assert bool(((scale > 1 / 96) & (scale < 1 / 48)).all())
        assert len(scale.unique()) == (64 if per == "head" else 1)
        larger, same = found.static_scale(part), without.static_scale(part)
        assert larger is not None
        assert same is not None
        assert torch.equal(larger, scale * (512 if part == "k" else 1))
        assert torch.equal(same, scale)


@pytest.mark.parametrize("store", ["fp8_e4m3(head)", "fp8_e5m2(head)"])
def test_no_draw_is_beyond_the_largest_code(store: str) -> None:
    found: AttentionSubject = subject(kv_cache=store)
    k, v = found.draw("a", torch.arange(300))[1:]
    largest = torch.finfo(found.kv_cache).max
    for part, x in zip("kv", (k, v), strict=True):
        scale = found.static_scale(part)
        assert scale is not None
        assert float((x / scale[:, None]).abs().max()) < largest


def test_columns_are_named_by_head() -> None:
    found = subject()
    names = ["head 0, dim 0", "head 0, dim 7", "head 3, dim 7", "lse of head 0", "lse of head 3"]
    assert [found.column(n) for n in (0, 7, 31, 32, 35)] == names


def test_what_is_not_said_of_a_subject_asks_nothing_of_its_kernels() -> None:
    built = subject(queries="normal")
    fields = ("pair", "heads", "scale", "execution", "kv_cache", "device", "seed")
    plain = AttentionSubject(**{name: getattr(built, name) for name in fields})
    assert plain == replace(built, mixture=MIXED)


def test_a_format_that_cannot_hold_the_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="24 does not divide it"):
        subject(kv_cache="int8(24)")


@pytest.mark.parametrize("kv_cache", ["float32", "fp8_e4m3(head)", "int8(8)"])
def test_exact_kernels_compute_each_sequence_of_a_call(kv_cache: str) -> None:
    found = subject(kv_cache=kv_cache, queries="normal", empty="never")
    planted = found.with_pair(exact_pair(found, exact))
    members = (Member("a", 9, 2), Member("b", 9, 2))
    steps = (
        (Span(0, 0, 5, 0), Span(1, 0, 3, 0)),
        (Span(0, 5, 6, 5, decode=True), Span(1, 3, 4, 3, decode=True)),
    )
    record = run(planted, Plan(members, steps, Layout()), [[0] * 9] * 2, temperatures=[1.0])
    wanted = {
        (i, p): rounded(found, found.oracle(member, [], range(p, p + 1)))[0]
        for i, member in enumerate(members)
        for p in range(6)
    }
    assert len(record.index) == 10
    for (sequence, position), row in zip(record.index, record.values, strict=True):
        assert torch.allclose(row.double(), wanted[sequence, position], rtol=0, atol=1e-6)

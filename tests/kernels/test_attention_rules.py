"""Sinks, soft caps and first keys: bits on every path, float64 within bounds, and controls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attention_cases import DTYPES, Case, exact, last, lay, reference, unequal, whole, wrong

from kvparity_kernels.attention import attend_decode, naive, prefill

Mutate = Callable[[dict[str, list[tuple[str, str]]]], Any]
UNIT = 2.0**-24  # half a step of float32: what one rounding costs, relative
STORED = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
RULES: dict[str, dict[str, Any]] = {
    "window": {"window": 20},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": True},
    "first key": {"first": True},
    "all": {"window": 20, "softcap": 1.5, "sinks": True, "first": True},
}
OTHER: dict[str, dict[str, Any]] = {  # a little wrong, for both controls
    "window": {"window": 19},
    "softcap": {"softcap": 1.45},
    "sinks": {"sinks": None},
    "first key": {"first_key": torch.arange(75) // 3 + 1},
    "all": {"sinks": torch.linspace(-1.0, 1.9, 4)},
}


@pytest.mark.parametrize(
    ("rules", "dtype"),
    [
        ("window", torch.float16),
        ("softcap", torch.bfloat16),
        ("sinks", torch.float32),
        ("first key", torch.float16),
        *(("all", dtype) for dtype in DTYPES),
    ],
)
def test_every_path_has_the_bits_of_prefill(rules: str, dtype: torch.dtype) -> None:
    case = Case(dtype=dtype, layout="paged 8" if dtype == torch.float16 else "contiguous")
    case = Case(**{**vars(case), **RULES[rules]})
    assert wrong(case, [(0, 9), (33, 40), (64, 75)], [0, 15, 32, 74]) == (0, 0)


def bounds(case: Case) -> tuple[float, float]:
    """How far out and lse may be from float64, to first order; as in test_attention_accuracy.py.

    Scores: (2 D + 6) u A, A the largest sum of magnitudes (or the largest sink, which is scaled
    to base 2 with one rounding), and two constants are rounded where there is a cap. The cap itself
    adds 10 u c: exp2 is within 2 u and its argument moves it by 0.4 u; of (1 - e) / (1 + e), whose
    slope is below 2, these make 4.8 u, three roundings at most 3 u, that of the product u. Sums
    over n keys and the sink: 3 (n + 1) u. Weights are rounded to the dtype of v, the result to
    that of q.
    """
    q, k, v = case.read_back()
    wide = k.repeat_interleave(case.heads // case.kv_heads, 1).double().abs()
    sizes = torch.einsum("qhd,khd->qhk", q.double().abs(), wide) * case.scale
    magnitude = max(sizes.max().item(), 2.0 * case.sinks)
    weight = (2 * case.dim + 6) * UNIT * magnitude + 10 * UNIT * case.softcap + 2 * UNIT
    sums = 3 * (case.n + 1) * UNIT
    lost = case.n * 2.0**-25 if case.dtype == torch.float16 else 0.0
    largest = v.double().abs().max().item()
    out = largest * (2 * weight + 2 * sums + 2 * STORED[case.dtype] + lost)
    return out, weight + sums + 4 * UNIT * (magnitude + 10)


@pytest.mark.parametrize("store", ["", "fp8_e4m3(head)", "int4(8)"])
@pytest.mark.parametrize("rules", RULES)
def test_close_to_float64(rules: str, store: str) -> None:
    case = Case(**RULES[rules], store=store)
    most = bounds(case)
    for ours, theirs, other, limit in zip(
        whole(case), exact(case), exact(case, **OTHER[rules]), most, strict=True
    ):
        hidden = theirs.isinf()
        assert torch.equal(ours.isinf(), hidden)
        assert (ours - theirs)[~hidden].abs().max() <= limit
        assert (ours - other)[~hidden].abs().max() > limit  # the control


def test_the_twin_is_the_definition() -> None:
    source = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, h, 8, generator=source).double() for n, h in ((5, 2), (9, 1), (9, 1)))
    sinks, first = torch.tensor([0.3, -1.0]), torch.tensor([0, 3, 1, 8, 2])
    out, lse = naive.attend(q, k, v, scale=0.5, window=4, softcap=2.0, sinks=sinks, first_key=first)
    for t in range(5):
        for h in range(2):
            seen = [j for j in range(9) if max(t + 4 - 3, int(first[t])) <= j <= t + 4]
            scores = [2.0 * math.tanh(0.5 * float(q[t, h] @ k[j, 0]) / 2.0) for j in seen]
            total = sum(math.exp(s) for s in scores) + math.exp(float(sinks[h]))
            value = sum(
                (math.exp(s) * v[j, 0] for s, j in zip(scores, seen, strict=True)), 0 * v[0, 0]
            )
            # Some forty operations of 2^-53 on values below 8.
            assert (out[t, h] - value / total).abs().max() < 40 * 8 * 2.0**-53
            assert abs(float(lse[t, h]) - math.log(total)) < 40 * 8 * 2.0**-53


PLANTED = {
    "the sink left out of decode": (
        "M, L, A = add_sink(M, L, A, SINKS, kv_head * G + r, ok)",
        "pass",
        {"sinks": True},
    ),
    "the sink of another head in decode": (
        "SINKS, kv_head * G + r, ok", "SINKS, r, ok", {"sinks": True}
    ),
    "the sink before the splits in decode": (
        "        for i in tl.range(0, count, FLIGHT):",
        "        M, L, A = add_sink(M, L, A, SINKS, kv_head * G + r, ok)\n"
        "        SINKS = None\n"
        "        for i in tl.range(0, count, FLIGHT):",
        {"sinks": True},
    ),
    "the first key of another sequence in decode": (
        "tl.load(FIRST + b)", "tl.load(FIRST)", {"first": True}
    ),
    "a key too many in decode": (
        "first = tl.maximum(kv_len - window, 0)",
        "first = tl.maximum(kv_len - window - 1, 0)",
        {"window": 20},
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_in_decode_alone_it_is_seen(mutate: Mutate, fault: str) -> None:
    old, new, rules = PLANTED[fault]
    place = "seen/kernels.py" if "first" in old.lower() else "kernels.py"
    mutant = mutate({place: [(old, new)]})
    chunks, alone = wrong(Case(**rules), [(64, 75)], [15, 74], mutant)
    assert chunks == 0
    assert alone > 0


def test_the_cap_comes_before_the_mask_and_after_the_scale(mutate: Mutate) -> None:
    case = Case(softcap=1.5)
    late = mutate({"launching.py": [("2 * LOG2_E * scale / softcap", "2 * LOG2_E / softcap")]})
    assert sum(wrong(case, [(64, 75)], [74], late)) > 0
    # As wide a cap as can be is the identity, to the bounds; the score 0 stays +0.
    near = whole(Case(softcap=1e4))[0]
    assert (near - exact(Case())[0]).abs().max() < 1e4 * 20 * UNIT
    zeros = naive.attend(*(x * 0 for x in case.rows), scale=1.0, softcap=1.5)
    assert (zeros[1][:, 0] - torch.arange(1, 76).double().log()).abs().max() < 2.0**-48


def test_large_scores_meet_the_cap() -> None:
    case = Case(n=40, softcap=2.0)
    q, k, v = case.rows
    kv = lay(case, [40], [0])
    out, lse = attend_decode(q[39:] * 1e30, kv, max_kv=40, scale=1.0, order=case.order, softcap=2.0)
    theirs = naive.attend(q[39:] * 1e30, k, v, scale=1.0, softcap=2.0)
    assert (out - theirs[0]).abs().max() < 400 * UNIT  # every score is 2 or -2: 40 keys of 10 u
    assert (lse - theirs[1]).abs().max() < 400 * UNIT


def test_rows_that_see_nothing_see_the_sink() -> None:
    case = Case(n=40)
    far = torch.tensor([2**31 - 1, 40, 0], dtype=torch.int32)
    kv = lay(case, [40, 40, 0], [0, 0, 0])
    rows: dict[str, Any] = {"max_kv": 40, "scale": 1.0, "order": case.order, "first_key": far}
    q = case.rows[0][:3]
    out, lse = attend_decode(q, kv, **rows)
    assert not out.view(torch.int32).any()  # +0
    assert (lse == -math.inf).all()
    several = whole(case)
    first = torch.full((40,), 2**31 - 1, dtype=torch.int32)
    first[3] = 0
    found = prefill(
        *case.rows,
        cu_seqlens_q=torch.tensor([0, 40], dtype=torch.int32),
        cu_seqlens_k=torch.tensor([0, 40], dtype=torch.int32),
        scale=case.scale,
        order=case.order,
        first_key=first,
    )
    assert unequal(tuple(x[3:4] for x in found), tuple(x[3:4] for x in several)) == 0
    assert not found[0][4:].view(torch.int32).any()
    assert (found[1][4:] == -math.inf).all()
    sinks = torch.tensor([0.0, 1.0, -3.0, -math.inf])
    out, lse = attend_decode(q, kv, sinks=sinks, window=7, **rows)
    assert not out.view(torch.int32).any()
    assert (lse - sinks).nan_to_num(0.0).abs().max() <= 4 * UNIT * 3  # to base 2 and back
    assert (lse[:, 3] == -math.inf).all()


def test_a_sink_of_minus_infinity_is_none() -> None:
    none = torch.full((4,), -math.inf)
    case = Case()
    assert unequal(last(case, [40], sinks=none), tuple(x[[40]] for x in reference(case))) == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"softcap": -1.0}, "softcap is -1.0; it must be positive, or 0 for none"),
        ({"softcap": math.nan}, "softcap is nan"),
        ({"sinks": torch.zeros(3)}, r"sinks is torch.float32 \(3,\) on cpu; expected .* \(4,\)"),
        ({"sinks": torch.zeros(4).half()}, "sinks is torch.float16"),
        ({"first_key": torch.zeros(2).int()}, r"first_key is torch.int32 \(2,\) .* \(1,\) on cpu"),
        ({"first_key": torch.zeros(1).long()}, "first_key is torch.int64"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        last(Case(), [3], **changes)

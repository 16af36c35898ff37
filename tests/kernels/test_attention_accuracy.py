"""Attention against its float64 twin, within bounds derived from the roundings it makes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels.attention.naive import attend
from kvparity_kernels.order import ReductionOrder

UNIT = 2.0**-24  # half a step of float32: what one rounding costs, relative
STORED = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


def bounds(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[float, float]:
    """How far out and lse may be from float64, to first order, for these data.

    Scores: D products and D sums, one scaling, and the subtraction and the argument of exp2 round
    once each: relative to the sum of magnitudes A, so an absolute error of (2 D + 4) u A, which is
    the relative error of a weight; exp2 itself adds 2 u. Sums over n keys add n u (every weight is
    positive), each of at most n rescalings 2 u. Weights are rounded to the dtype of v and the
    result to that of q: 2 * STORED. Half floats lose weights below 2^-25, at most n of them.
    """
    group = q.shape[1] // k.shape[1]
    wide = k.repeat_interleave(group, 1).double().abs()
    magnitude = torch.einsum("qhd,khd->qhk", q.double().abs(), wide).max().item() * scale
    keys, dim = k.shape[0], k.shape[2]
    weight = (2 * dim + 4) * UNIT * magnitude + 2 * UNIT
    sums = 3 * keys * UNIT
    lost = keys * 2.0**-25 if q.dtype == torch.float16 else 0.0
    largest = v.double().abs().max().item()
    out = largest * (2 * weight + 2 * sums + 2 * STORED[q.dtype] + lost)
    return out, weight + sums + 4 * UNIT * (magnitude + 10)


def errors(lab: SimpleNamespace, case: Any, scale: float) -> tuple[float, float]:
    q, k, v = case.rows(0)
    kv = lab.lay([(k, v)], 0)
    n = case.lens[0]
    out, lse = lab.attention.attend_prefill(
        q,
        kv,
        q_starts=torch.tensor([0], dtype=torch.int32),
        q_lens=torch.tensor([n], dtype=torch.int32),
        max_q=n,
        scale=scale,
        order=case.order,
    )
    exact, exact_lse = attend(q, k, v, scale=case.scale)
    return (out - exact).abs().max().item(), (lse - exact_lse).abs().max().item()


@pytest.mark.parametrize(
    ("dim", "dtype"),
    [
        (16, torch.float32),
        (80, torch.float32),
        (96, torch.float16),
        (128, torch.bfloat16),
        (256, torch.bfloat16),
        (64, torch.float16),
    ],
    ids=str,
)
def test_close_to_float64(lab: SimpleNamespace, dim: int, dtype: torch.dtype) -> None:
    case = lab.Case(lens=(45,), dim=dim, dtype=dtype, order=ReductionOrder(32, 16, 32))
    out, lse = errors(lab, case, case.scale)
    most_out, most_lse = bounds(*case.rows(0), case.scale)
    assert out <= most_out
    assert lse <= most_lse
    # The control: a scale that is 2 % wrong is beyond the bounds.
    wrong_out, wrong_lse = errors(lab, case, 1.02 * case.scale)
    assert wrong_lse > most_lse
    assert wrong_out > most_out or dtype == torch.bfloat16  # whose 2^-7 hides it


def test_decode_is_as_close(lab: SimpleNamespace) -> None:
    case = lab.Case(lens=(70,), dim=32)
    q, k, v = case.rows(0)
    exact, exact_lse = attend(q[-1:], k, v, scale=case.scale)
    out, lse = lab.decode(case, [(0, 69)], lab.attention)[0]
    most_out, most_lse = bounds(q[-1:], k, v, case.scale)
    assert (out - exact).abs().max() <= most_out
    assert (lse - exact_lse).abs().max() <= most_lse
    # The control: one key less.
    exact, _ = attend(q[-1:], k[1:], v[1:], scale=case.scale)
    assert (out - exact).abs().max() > most_out


def test_the_twin_is_torchs_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, h, 8, generator=generator) for n, h in ((5, 4), (9, 2), (9, 2)))
    out, lse = attend(q, k, v, scale=0.3)
    assert out.dtype == lse.dtype == torch.float64
    mask = torch.ones(5, 9, dtype=torch.bool).tril(4)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(x.double().transpose(0, 1) for x in (q, k, v)), attn_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(0, 1)
    # Both round in float64: 40 operations of 2^-53 on values below 4.
    assert (out - theirs).abs().max() < 40 * 4 * 2.0**-53
    ones, ones_lse = attend(torch.zeros(3, 1, 8), v[:3, :1], torch.ones(3, 1, 8), scale=1.0)
    assert torch.equal(ones, torch.ones(3, 1, 8).double())
    assert (ones_lse[:, 0] - torch.tensor([1.0, 2.0, 3.0]).double().log()).abs().max() < 2.0**-50
    empty, empty_lse = attend(q, k[:2], v[:2], scale=1.0)  # three rows before the first key
    assert not empty[:3].any()
    assert (empty_lse[:3] == -torch.inf).all()
    nothing, nothing_lse = attend(q, k[:0], v[:0], scale=1.0)
    assert not nothing.any()
    assert (nothing_lse == -torch.inf).all()

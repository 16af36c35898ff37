"""RMS norm: accuracy, independence of rows, where it rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.norm import naive, rms_norm

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = list(UNIT)
EPS = 1e-6


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 24, 64, 4500])
def test_close_to_float64(width: int, dtype: torch.dtype) -> None:
    x, w = draw(5, width, dtype=dtype), draw(width, dtype=dtype, seed=1)
    exact = naive.rms_norm(x, w, EPS)
    # All squares are positive, so the relative error of their sum is at most one rounding for the
    # square, one per block and one per level of the tree; the root halves it; the quotients, the
    # root and the product add one each. Then the normal value and the product are rounded to the
    # dtype (w * normal of two 16-bit floats is exact in float32).
    depth = 1 + -(-width // 4096) + 12
    relative = (depth / 2 + 4) * UNIT[torch.float32] + 2 * UNIT[dtype]
    bound = 1.01 * relative * exact.abs() + torch.finfo(dtype).smallest_normal * UNIT[dtype] * 4
    for twin in (False, True):
        found = rms_norm(x, w, EPS, twin=twin)
        assert found.dtype == dtype
        assert ((found.double() - exact).abs() <= bound).all()


def test_the_bound_is_not_idle() -> None:
    x, w = draw(5, 64), torch.ones(64)
    exact = naive.rms_norm(x, w, EPS)
    rough = naive.rms_norm(x, w, 1e-5)  # control: another eps
    assert ((rough - exact).abs() > 1.01 * 13 * UNIT[torch.float32] * exact.abs()).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("twin", [False, True])
def test_a_row_depends_on_itself_alone(dtype: torch.dtype, twin: bool) -> None:
    x, w = draw(300, 24, dtype=dtype), draw(24, dtype=dtype, seed=1)
    rows = 300 if twin else 40  # the interpreter takes a millisecond for each
    full = rms_norm(x[:rows], w, EPS, twin=twin)
    for row in (0, 7, rows - 1):
        assert differing(rms_norm(x[row : row + 1], w, EPS, twin=twin)[0], full[row]) == 0
        among = torch.full((9, 24), float("nan"), dtype=dtype)
        among[5] = x[row]
        moved = rms_norm(among, w, EPS, twin=twin)
        assert differing(moved[5], full[row]) == 0
        assert moved.isnan().all(dim=1).sum() == 8


@pytest.mark.parametrize("twin", [False, True])
def test_the_value_is_rounded_before_the_weight(twin: bool) -> None:
    # The order of Hugging Face's llama: weight * normal.to(input dtype).
    x, w = draw(30, 64, dtype=torch.bfloat16), draw(64, dtype=torch.bfloat16, seed=1)
    normal = rms_norm(x, torch.ones_like(w), EPS, twin=twin)
    assert differing(rms_norm(x, w, EPS, twin=twin), w * normal) == 0
    once = naive.rms_norm(x, w, EPS).bfloat16()
    assert differing(rms_norm(x, w, EPS, twin=twin), once) > 0  # control: rounded only once


def test_heads_are_rows() -> None:
    x, w = draw(3, 4, 16), draw(16, seed=1)
    found = rms_norm(x, w, EPS)
    assert found.shape == x.shape
    assert differing(found, rms_norm(x.reshape(12, 16), w, EPS).reshape(3, 4, 16)) == 0
    halves = draw(3, 8, 16)[:, ::2]
    assert differing(rms_norm(halves, w, EPS), rms_norm(halves.contiguous(), w, EPS)) == 0


def test_refusals() -> None:
    x, w = draw(2, 8), draw(8)
    for a, b, eps, words in (
        (x, draw(9), EPS, r"w has shape \[9\], expected \[8\]"),
        (x, w.bfloat16(), EPS, "w has dtype torch.bfloat16 but x has torch.float32"),
        (x.int(), w, EPS, "x has dtype torch.int32"),
        (x, w, -1.0, "eps is -1.0, expected a number >= 0"),
        (x, w, float("nan"), "eps is nan"),
        (draw(2, 0), draw(0), EPS, "the last dimension of x is empty"),
        (torch.tensor(1.0), w, EPS, "x has no dimension"),
    ):
        with pytest.raises(ValueError, match=words):
            rms_norm(a, b, eps)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        rms_norm(x.to("meta"), w.to("meta"), EPS, twin=True)

"""The gated activation: accuracy, extremes, independence of elements."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.swiglu import naive, swiglu

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = list(UNIT)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("twin", [False, True])
def test_close_to_float64(dtype: torch.dtype, twin: bool) -> None:
    gate, up = draw(7, 1100, dtype=dtype) * 4, draw(7, 1100, dtype=dtype, seed=1)
    gate[0, :6] = torch.tensor([0.0, -0.0, 80.0, -80.0, -200.0, 3e4], dtype=dtype)
    exact = naive.swiglu(gate, up)
    # The exponential is good to 4 units; sum, quotient and two products round once each.
    bound = 1.01 * (8 * UNIT[torch.float32] + UNIT[dtype]) * exact.abs()
    bound += torch.finfo(dtype).smallest_normal * UNIT[dtype] * 4 + 2.0**-140
    found = swiglu(gate, up, twin=twin)
    assert found.dtype == dtype
    assert ((found.double() - exact).abs() <= bound).all()
    relu = naive.swiglu(gate, up).where(gate > 0, 0.0)  # control: another activation
    assert ((found.double() - relu).abs() > bound).any()


@pytest.mark.parametrize("twin", [False, True])
def test_the_product_is_rounded_once(twin: bool) -> None:
    gate, up = draw(3, 200, dtype=torch.bfloat16), draw(3, 200, dtype=torch.bfloat16, seed=1)
    found = swiglu(gate, up, twin=twin)
    assert differing(found, swiglu(gate.float(), up.float(), twin=twin).bfloat16()) == 0
    twice = swiglu(gate, torch.ones_like(up), twin=twin) * up
    assert differing(found, twice) > 0  # control: the activation rounded on its own


@pytest.mark.parametrize("twin", [False, True])
def test_a_row_depends_on_itself_alone(twin: bool) -> None:
    gate, up = draw(40, 70), draw(40, 70, seed=1)
    full = swiglu(gate, up, twin=twin)
    among_gate, among_up = torch.full((2, 5, 70), float("nan"))
    for row in (0, 39):
        assert differing(swiglu(gate[row, None], up[row, None], twin=twin)[0], full[row]) == 0
        among_gate[3], among_up[3] = gate[row], up[row]
        moved = swiglu(among_gate, among_up, twin=twin)
        assert differing(moved[3], full[row]) == 0
        assert moved.isnan().all(dim=1).sum() == 4


def test_halves_of_one_projection() -> None:
    both = draw(6, 100)
    gate, up = both.chunk(2, dim=1)
    for twin in (False, True):
        dense = swiglu(gate.contiguous(), up.contiguous(), twin=twin)
        assert differing(swiglu(gate, up, twin=twin), dense) == 0
        assert differing(swiglu(up, gate, twin=twin), dense) > 0  # control: swapped


def test_refusals() -> None:
    gate = draw(2, 8)
    for g, u, words in (
        (gate, draw(2, 9), r"up has shape \[2, 9\], expected \[2, 8\]"),
        (gate[0], gate[0], r"gate has shape \[8\]"),
        (gate, gate.half(), "up has dtype torch.float16 but gate has torch.float32"),
        (draw(8, 2).T, gate, "last dimension of gate has stride 2"),
        (draw(2, 0), draw(2, 0), "no columns"),
    ):
        with pytest.raises(ValueError, match=words):
            swiglu(g, u)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        swiglu(gate.to("meta"), gate.to("meta"), twin=True)

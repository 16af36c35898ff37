"""Rotary embedding: accuracy, independence of tokens, where it rounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kvparity_kernels.rope import naive, rope, rotate, tables

UNIT = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
DTYPES = list(UNIT)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def frequencies(half: int) -> Tensor:
    return 1.0 / 10000.0 ** (torch.arange(half, dtype=torch.float32) / half)


def differing(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    view = torch.int32 if a.dtype == torch.float32 else torch.int16
    return int((a.contiguous().view(view) != b.contiguous().view(view)).sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "half"), [(4, 8), (3, 12)])
def test_close_to_float64(heads: int, half: int, dtype: torch.dtype) -> None:
    positions = torch.tensor([0, 1, 7, 300, 4095, 100_000])
    x, f = draw(6, heads, 2 * half, dtype=dtype), frequencies(half)
    exact = naive.rope(x, positions, f)
    # The float32 angle is off by half an ulp of itself, and sine and cosine have slope at most 1;
    # they are good to 4 units; two products and a sum round three times.
    u = UNIT[torch.float32]
    angle = positions.double()[:, None] * f.double()
    low, high = x.double().abs().chunk(2, dim=-1)
    bound = (angle * u + 7 * u)[:, None, :] * (low + high)
    bound = 1.01 * (torch.cat([bound, bound], dim=-1) + UNIT[dtype] * exact.abs())
    bound += torch.finfo(dtype).smallest_normal * UNIT[dtype]
    for twin in (False, True):
        found = rope(x, positions, f, twin=twin)
        assert found.dtype == dtype
        assert ((found.double() - exact).abs() <= bound).all()
        late = rope(x, positions + 1, f, twin=twin)  # control: one position late
        assert ((late.double() - exact).abs() > bound).any()


@pytest.mark.parametrize("twin", [False, True])
def test_a_token_depends_on_itself_alone(twin: bool) -> None:
    tokens = 300 if twin else 40
    positions = torch.arange(tokens) * 37
    x, f = draw(tokens, 2, 24, dtype=torch.bfloat16), frequencies(12)
    cos, sin = tables(positions, f, twin=twin)
    full = rotate(x, cos, sin, twin=twin)
    for token in (0, 5, tokens - 1):
        one = slice(token, token + 1)
        for whole, part in zip((cos, sin), tables(positions[one], f, twin=twin), strict=True):
            assert differing(part, whole[one]) == 0
        assert differing(rope(x[one], positions[one], f, twin=twin), full[one]) == 0
        among = torch.full((7, 2, 24), float("nan"), dtype=torch.bfloat16)
        among[4] = x[token]
        elsewhere = torch.arange(7) * 11
        elsewhere[4] = positions[token]
        assert differing(rope(among, elsewhere, f, twin=twin)[4], full[token]) == 0


@pytest.mark.parametrize("twin", [False, True])
def test_the_result_is_rounded_once(twin: bool) -> None:
    x, f = draw(9, 2, 16, dtype=torch.bfloat16), frequencies(8)
    positions = torch.arange(9)
    cos, sin = tables(positions, f, twin=twin)
    wide = rotate(x.float(), cos, sin, twin=twin)
    assert differing(rotate(x, cos, sin, twin=twin), wide.bfloat16()) == 0
    # Control: tables and products rounded to bfloat16, as Hugging Face does.
    c, s = cos.bfloat16()[:, None, :], sin.bfloat16()[:, None, :]
    low, high = x.chunk(2, dim=-1)
    rough = torch.cat([low * c - high * s, high * c + low * s], dim=-1)
    assert differing(rotate(x, cos, sin, twin=twin), rough) > 0
    # And another: a contracted multiply-add, in float64 rounded once to float32.
    low, high = x.double().chunk(2, dim=-1)
    c, s = cos.double()[:, None, :], sin.double()[:, None, :]
    fused = torch.cat([low * c - high * s, high * c + low * s], dim=-1).float()
    assert differing(wide, fused) > 0


def test_angles_are_float32_products() -> None:
    f = frequencies(8)
    positions = torch.tensor([3, 70_001])
    cos, _ = tables(positions, f)
    angle = positions.float()[:, None] * f
    assert (cos.double() - torch.cos(angle.double())).abs().max() <= 4 * UNIT[torch.float32]
    exact = torch.cos(positions.double()[:, None] * f.double())
    assert (cos.double() - exact).abs().max() > 4 * UNIT[torch.float32]  # control: float64 angles


def test_strides_of_tokens_and_heads_are_free() -> None:
    merged = draw(5, 6, 16)
    f, positions = frequencies(8), torch.arange(5)
    for twin in (False, True):
        part = merged[:, 2:5]
        found = rope(part, positions, f, twin=twin)
        assert differing(found, rope(part.contiguous(), positions, f, twin=twin)) == 0


def test_refusals() -> None:
    x, f, positions = draw(3, 2, 8), frequencies(4), torch.arange(3)
    for a, p, g, words in (
        (x[0], positions, f, r"x has shape \[2, 8\]"),
        (draw(3, 2, 7), positions, f, "7 channels, expected even"),
        (x, positions.int(), f, "positions have dtype torch.int32, expected int64"),
        (x, positions, f.double(), "inv_freq has dtype torch.float64, expected float32"),
        (x, torch.arange(4), f, r"cos has shape \[4, 4\], expected \[3, 4\]"),
        (x.double(), positions, f, "x has dtype torch.float64"),
        (draw(3, 8, 2).transpose(1, 2), positions, f, "last dimension of x has stride 2"),
    ):
        with pytest.raises(ValueError, match=words):
            rope(a, p, g)
    cos, sin = tables(positions, f)
    with pytest.raises(ValueError, match=r"cos has dtype torch\.bfloat16, expected float32"):
        rotate(x, cos.bfloat16(), sin)
    with pytest.raises(ValueError, match="twin=True is for CPU tensors"):
        rotate(x.to("meta"), cos.to("meta"), sin.to("meta"), twin=True)

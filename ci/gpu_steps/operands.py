"""Operands that show how a matrix instruction adds: random ones, and those at every edge."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels.tensor_cores import Operand

NAMES: dict[Operand, tuple[str, torch.dtype, int]] = {
    "bfloat16": ("bf16", torch.bfloat16, 16),
    "float16": ("f16", torch.float16, 16),
    "tf32": ("tf32", torch.float32, 8),
    "fp8e4nv": ("e4m3", torch.float8_e4m3fn, 32),
    "fp8e5": ("e5m2", torch.float8_e5m2, 32),
}
"""As PTX writes it, as torch does, and K of one instruction."""
KINDS = ("random", "cancelling", "subnormal", "zero", "near e_zero", "infinite", "nan", "any bits")
Operands = tuple[Tensor, Tensor, Tensor]


def operands(kind: str, operand: Operand, side: int, k: int, seed: int) -> Operands:
    """``a [side, k]``, ``b [k, side]`` in the format, ``c [side, side]`` in float32."""
    draw = torch.Generator().manual_seed(seed)
    dtype = NAMES[operand][1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    def spread(x: Tensor, bits: int) -> Tensor:
        return torch.ldexp(x, torch.randint(-bits, bits + 1, x.shape, generator=draw))

    def some(x: Tensor, values: list[float], part: float) -> Tensor:
        chosen = torch.rand(x.shape, generator=draw) < part
        at = torch.randint(len(values), x.shape, generator=draw)
        return torch.where(chosen, torch.tensor(values, dtype=x.dtype)[at], x)

    bits = 2 if dtype.itemsize == 1 else 5
    a, b, c = spread(normal(side, k), bits), spread(normal(k, side), bits), normal(side, side)
    c = spread(c, 12)
    if kind == "cancelling":
        a[:, 1::2], b[1::2] = a[:, ::2], -b[::2]
        a[:, 1::2] += some(torch.zeros(side, k // 2), [0.25], 0.1)
    elif kind == "subnormal":
        least = {"bfloat16": -126, "tf32": -126, "float16": -14, "fp8e4nv": -6, "fp8e5": -14}
        a = torch.ldexp(a, torch.tensor(least[operand] - 1))
        b = torch.ldexp(b, torch.tensor(-4 if seed % 2 else 4 if dtype.itemsize == 1 else 8))
        c = some(
            torch.ldexp(c, torch.tensor(least[operand] * 1.0)), [0.0, -0.0, 1e-40, -1e-44], 0.3
        )
    elif kind == "zero":
        a, b, c = (some(x, [0.0, -0.0], part) for x, part in ((a, 0.4), (b, 0.4), (c, 0.7)))
        c = torch.ldexp(c, torch.tensor(-130.0 if seed % 2 else 0.0))
        if seed % 2:
            a = torch.ldexp(
                a, torch.tensor(-8 if dtype.itemsize < 4 and dtype != torch.bfloat16 else -110)
            )
            b = torch.ldexp(b, torch.tensor(-6))
    elif kind == "near e_zero":  # beside zeros, below their exponent: bits that carry are cut off
        half = torch.tensor(-74 if operand in ("bfloat16", "tf32") else 0)
        a, b = (torch.ldexp(normal(*x.shape).abs(), half) for x in (a, b))
        a, b, c = some(a, [0.0], 0.2), some(b, [0.0], 0.2), torch.zeros_like(c)
    elif kind in ("infinite", "nan"):
        special = [float("inf"), -float("inf")] if kind == "infinite" else [float("nan")]
        a, b, c = (some(x, special, 0.3 / k) for x in (a, b, c))
    elif kind == "any bits":
        width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
        low, high = (
            (0, 256)
            if dtype.itemsize == 1
            else (-(2 ** (8 * dtype.itemsize - 1)), 2 ** (8 * dtype.itemsize - 1))
        )
        a, b = (
            torch.randint(low, high, x.shape, generator=draw).to(width).view(dtype) for x in (a, b)
        )
        raw = torch.randint(-(2**31), 2**31, c.shape, generator=draw)
        return a, b, raw.to(torch.int32).view(torch.float32)
    return a.to(dtype), b.to(dtype), c

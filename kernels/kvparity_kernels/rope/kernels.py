"""Rotary embedding: the tables, and the rotation of one token by a program."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("POSITIONS", "INV_FREQ"))
def tables(POSITIONS, INV_FREQ, COS, SIN, total, HALF: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = i < total
    position = tl.load(POSITIONS + i // HALF, mask=ok, other=0).to(tl.float32)
    angle = position * tl.load(INV_FREQ + i % HALF, mask=ok, other=0.0)
    tl.store(COS + i, tl.cos(angle), mask=ok)
    tl.store(SIN + i, tl.sin(angle), mask=ok)


@kernel(unaligned=("X", "COS", "SIN"))
def rotate(
    X,
    COS,
    SIN,
    Y,
    x_token,
    x_head,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BLOCK_H)[:, None]
    d = tl.arange(0, BLOCK_D)[None, :]
    ok = (h < HEADS) & (d < HALF)
    cos = tl.load(COS + token * HALF + d, mask=d < HALF, other=0.0)
    sin = tl.load(SIN + token * HALF + d, mask=d < HALF, other=0.0)
    x = X + token * x_token + h * x_head + d
    low = tl.load(x, mask=ok, other=0.0).to(tl.float32)
    high = tl.load(x + HALF, mask=ok, other=0.0).to(tl.float32)
    y = Y + token * (HEADS * 2 * HALF) + h * (2 * HALF) + d
    tl.store(y, (low * cos - high * sin).to(Y.dtype.element_ty), mask=ok)
    tl.store(y + HALF, (high * cos + low * sin).to(Y.dtype.element_ty), mask=ok)

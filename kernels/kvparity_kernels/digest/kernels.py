"""A 64-bit digest of one row."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("X",))
def row_digest(X, Y, stride, W: tl.constexpr, MASK: tl.constexpr, BLOCK: tl.constexpr):
    # X points at the bits as signed integers; MASK drops the sign extension.
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.uint64)
    for start in tl.range(0, W, BLOCK):
        col = start + lane
        bits = tl.load(X + row * stride + col, mask=col < W, other=0).to(tl.int64) & MASK
        z = ((col.to(tl.int64) << 32) | bits).to(tl.uint64)
        # splitmix64, a bijection: see the naive twin.
        z += 0x9E3779B97F4A7C15
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB
        z = z ^ (z >> 31)
        total += tl.where(col < W, z, 0)
    tl.store(Y + row, tl.sum(total, 0).to(tl.int64))

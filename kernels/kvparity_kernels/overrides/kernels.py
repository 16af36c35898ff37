"""Batched products, sums of rows, and the softmax of rows."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("A", "B"))
def matmul(
    A,
    B,
    Y,
    rows,
    columns,
    depth,
    a_batch,
    a_row,
    a_k,
    b_batch,
    b_k,
    b_column,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # Sizes are scalars: the keys of a decoding model grow by one, and each would be a compilation.
    tiles_n = (columns + BLOCK_N - 1) // BLOCK_N
    tiles = (rows + BLOCK_M - 1) // BLOCK_M * tiles_n
    batch = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    rm = (tile // tiles_n) * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = (tile % tiles_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    ok_m = rm < rows
    ok_n = rn < columns
    a = A + batch * a_batch + rm.to(tl.int64)[:, None] * a_row
    b = B + batch * b_batch + rn.to(tl.int64)[None, :] * b_column
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in tl.range(0, depth, BLOCK_K):
        k = (start + rk).to(tl.int64)
        ok_k = k < depth
        left = tl.load(a + k[None, :] * a_k, mask=ok_m[:, None] & ok_k[None, :], other=0.0)
        right = tl.load(b + k[:, None] * b_k, mask=ok_n[None, :] & ok_k[:, None], other=0.0)
        acc = tl.dot(left, right, acc, input_precision="ieee")
    y = Y + batch * rows * columns + rm.to(tl.int64)[:, None] * columns + rn[None, :]
    tl.store(y, acc.to(Y.dtype.element_ty), mask=ok_m[:, None] & ok_n[None, :])


@kernel(unaligned=("X",))
def row_sum(X, Y, width, divisor, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    lanes = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, width, BLOCK):
        col = start + lane
        lanes += tl.load(X + row * width + col, mask=col < width, other=0.0).to(tl.float32)
    tl.store(Y + row, tl.div_rn(tl.sum(lanes, 0), divisor).to(Y.dtype.element_ty))


@kernel(unaligned=("X",))
def softmax(X, Y, width, LOG: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    tops = tl.full((BLOCK,), -float("inf"), tl.float32)
    for start in tl.range(0, width, BLOCK):
        col = start + lane
        x = tl.load(X + row * width + col, mask=col < width, other=-float("inf"))
        tops = tl.maximum(tops, x.to(tl.float32))
    top = tl.max(tops, 0)
    lanes = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, width, BLOCK):
        col = start + lane
        x = tl.load(X + row * width + col, mask=col < width, other=-float("inf"))
        part = tl.exp(x.to(tl.float32) - top)
        lanes += tl.where(col < width, part, 0.0)
    total = tl.sum(lanes, 0)
    for start in tl.range(0, width, BLOCK):
        col = start + lane
        x = tl.load(X + row * width + col, mask=col < width, other=0.0).to(tl.float32)
        if LOG:  # noqa: SIM108 - decided when the kernel is compiled
            y = (x - top) - tl.log(total)
        else:
            y = tl.div_rn(tl.exp(x - top), total)
        tl.store(Y + row * width + col, y.to(Y.dtype.element_ty), mask=col < width)

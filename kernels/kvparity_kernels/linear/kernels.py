"""One tile of a linear layer."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("BIAS",))
def linear(
    X,
    W,
    BIAS,
    Y,
    rows,
    N: tl.constexpr,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    # One axis of tiles: axes 1 and 2 of a grid end at 65535. BAND tiles of rows go through the
    # columns together, rows fastest, so that neither weights nor activations are read too often.
    tiles_n: tl.constexpr = (N + BLOCK_N - 1) // BLOCK_N
    pid = tl.program_id(0)
    first = pid // (BAND * tiles_n) * BAND
    high = tl.minimum(tl.cdiv(rows, BLOCK_M) - first, BAND)
    inner = pid % (BAND * tiles_n)
    rm = (first + inner % high) * BLOCK_M + tl.arange(0, BLOCK_M)
    rn = inner // high * BLOCK_N + tl.arange(0, BLOCK_N)
    rk = tl.arange(0, BLOCK_K)
    ok_m = rm < rows
    ok_n = rn < N
    x = X + rm.to(tl.int64)[:, None] * K + rk[None, :]
    w = W + rn.to(tl.int64)[None, :] * K + rk[:, None]
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in tl.range(0, K, BLOCK_K):
        # Which masks there are is a matter of the weight's shape, the same for every M.
        mask_a = ok_m[:, None]
        mask_b = ok_n[None, :]
        if K % BLOCK_K != 0:
            ok_k = k + rk < K
            mask_a = mask_a & ok_k[None, :]
            mask_b = mask_b & ok_k[:, None]
        a = tl.load(x + k, mask=mask_a, other=0.0)
        if K % BLOCK_K == 0 and N % BLOCK_N == 0:
            b = tl.load(w + k)
        else:
            b = tl.load(w + k, mask=mask_b, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    if BIAS is not None:
        acc += tl.load(BIAS + rn, mask=ok_n, other=0.0).to(tl.float32)[None, :]
    y = Y + rm.to(tl.int64)[:, None] * N + rn[None, :]
    tl.store(y, acc.to(Y.dtype.element_ty), mask=ok_m[:, None] & ok_n[None, :])

"""Check, allocate, launch."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels import rules
from kvparity_kernels.linear import twin as cpu
from kvparity_kernels.order import ReductionOrder

BAND = 8  # tiles of rows that walk the columns together: where activations stay in the cache


def linear(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    order: ReductionOrder,
    out_dtype: torch.dtype | None = None,
    twin: bool = False,
) -> Tensor:
    """``x[M, K] @ w[N, K].T + bias[N]``: ``[M, N]`` in ``out_dtype`` (that of ``x`` if None).

    K is walked ascending in steps of ``order.linear_k`` in one float32 accumulator chain; the
    bias is added once at the end in float32, and the result is rounded once. Tiles are
    ``order.block_m`` rows for every M, so that one row and many take the same instructions: a row
    of the result depends neither on M, nor on its place, nor on other rows. Where ``tiles`` has
    another tile for so many rows, a device was seen to give the same bits with it.

    ``x``, ``w`` and ``bias`` share one of float32, float16, bfloat16 and one device; one
    that is not contiguous, or not on 16 bytes, is copied. ``twin=True``, for CPU tensors only,
    computes the same bits as the interpreted kernel without interpreting it. Raises ``ValueError``.
    """
    arg.require_shape("linear", "x", x, None, None)
    rows, depth = x.shape
    arg.require_shape("linear", "w", w, None, depth)
    columns = w.shape[0]
    tensors = {"x": x, "w": w}
    if bias is not None:
        arg.require_shape("linear", "bias", bias, columns)
        tensors["bias"] = bias
    dtype = arg.require_floats("linear", tensors)
    arg.require(columns > 0 and depth > 0, f"linear: w has shape {list(w.shape)}, which is empty")
    out_dtype = out_dtype or dtype
    arg.require(
        out_dtype in arg.FLOATS,
        f"linear: out_dtype is {out_dtype}, expected float32, float16 or bfloat16",
    )
    if twin:
        arg.require_twin("linear", x)
        return cpu.linear(x, w, bias, out_dtype)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.linear import kernels

    y = arg.poisoned((rows, columns), out_dtype, x.device)
    tile = rules.current(x.device, dtype, order).linear_tile(rows, order)
    launch(
        kernels.linear,
        (-(-rows // tile.block_m) * -(-columns // tile.block_n),),
        X=arg.dense(x),
        W=arg.dense(w),
        BIAS=None if bias is None else bias.detach().contiguous(),
        Y=y,
        rows=rows,
        N=columns,
        K=depth,
        BLOCK_M=tile.block_m,
        BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k,
        BAND=BAND,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return y

"""Sums and softmax of rows, and batched products: check, allocate, launch."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.linear import twin as linear_twin
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides import twin as cpu

# Lanes that a row is added into: one number for all widths, so that a row with more masked keys
# behind it is added as the row without them.
BLOCK = 1024
BLOCK_N = 64
ORDER = ReductionOrder()


def row_sum(
    x: Tensor, *, divisor: float = 1.0, out_dtype: torch.dtype | None = None, twin: bool
) -> Tensor:
    """The sum of each row of ``x[r, n]``, over ``divisor``: ``[r]``, rounded once.

    Column ``c`` is added to lane ``c mod 1024``, ascending, in float32; the lanes are then added
    by halves. Raises ``ValueError``.
    """
    out_dtype = _check("row_sum", x, out_dtype, twin)
    if 0 in x.shape:
        return torch.zeros(len(x), dtype=out_dtype, device=x.device) / divisor
    if twin:
        return cpu.row_sum(x, divisor, BLOCK, out_dtype)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.overrides import kernels

    y = arg.poisoned((len(x),), out_dtype, x.device)
    launch(
        kernels.row_sum,
        (len(x),),
        X=x.detach().contiguous(),
        Y=y,
        width=x.shape[1],
        divisor=float(divisor),
        BLOCK=BLOCK,
    )
    return y


def softmax(
    x: Tensor, *, log: bool = False, out_dtype: torch.dtype | None = None, twin: bool
) -> Tensor:
    """Softmax, or its logarithm, of each row of ``x[r, n]``: ``[r, n]``, rounded once.

    The exponentials are added as in :func:`row_sum`; columns of ``-inf`` add exact zeros, so they
    may stand behind a row or be left out. Raises ``ValueError``.
    """
    out_dtype = _check("softmax", x, out_dtype, twin)
    if 0 in x.shape:
        return torch.empty_like(x, dtype=out_dtype)
    if twin:
        return cpu.softmax(x, log, BLOCK, out_dtype)

    from kvparity_kernels.launch import launch
    from kvparity_kernels.overrides import kernels

    y = arg.poisoned(tuple(x.shape), out_dtype, x.device)
    launch(
        kernels.softmax,
        (len(x),),
        X=x.detach().contiguous(),
        Y=y,
        width=x.shape[1],
        LOG=log,
        BLOCK=BLOCK,
    )
    return y


def matmul(
    a: Tensor,
    b: Tensor,
    *,
    order: ReductionOrder = ORDER,
    out_dtype: torch.dtype | None = None,
    twin: bool,
) -> Tensor:
    """``a[B, M, K] @ b[B, K, N]``: ``[B, M, N]``, each as ``kvparity_kernels.linear`` adds it.

    K is walked ascending in one float32 accumulator chain and rounded once. Where ``a`` is 0 and
    ``b`` finite a step adds an exact zero (to a chain that starts at +0 and so is never -0), so
    keys that the softmax masked may stand behind the others or be left out. Raises ``ValueError``.
    """
    arg.require_shape("matmul", "a", a, None, None, None)
    batch, rows, depth = a.shape
    arg.require_shape("matmul", "b", b, batch, depth, None)
    columns = b.shape[2]
    dtype = arg.require_floats("matmul", {"a": a, "b": b})
    out_dtype = out_dtype or dtype
    if 0 in (*a.shape, columns):
        return torch.zeros(batch, rows, columns, dtype=out_dtype, device=a.device)
    if twin:
        arg.require_twin("matmul", a)
        pairs = zip(a, b, strict=True)
        return torch.stack([linear_twin.linear(x, w.T, None, out_dtype) for x, w in pairs])

    from kvparity_kernels.launch import launch
    from kvparity_kernels.overrides import kernels

    y = arg.poisoned((batch, rows, columns), out_dtype, a.device)
    launch(
        kernels.matmul,
        (batch * -(-rows // order.block_m) * -(-columns // BLOCK_N),),
        a.detach(),
        b.detach(),
        y,
        rows,
        columns,
        depth,
        *a.stride(),
        *b.stride(),
        BLOCK_M=order.block_m,
        BLOCK_N=BLOCK_N,
        BLOCK_K=order.linear_k,
        num_warps=order.num_warps,
    )
    return y


def _check(op: str, x: Tensor, out_dtype: torch.dtype | None, twin: bool) -> torch.dtype:
    arg.require_shape(op, "x", x, None, None)
    dtype = arg.require_floats(op, {"x": x})
    if twin:
        arg.require_twin(op, x)
    return out_dtype or dtype

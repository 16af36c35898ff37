"""Torch's products in the fixed order, with the arguments of the aten operations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kvparity_kernels.linear import linear as fixed_linear
from kvparity_kernels.overrides.rows import ORDER, matmul

Number = int | float


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """``aten::linear``: ``x[..., K] @ w[N, K].T + bias[N]``."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return _linear(rows, w, bias).reshape(*x.shape[:-1], w.shape[0])


def mm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """``aten::mm``: ``a[M, K] @ b[K, N]``."""
    return _linear(a, b.t(), None, out_dtype)


def bmm(a: Tensor, b: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    """``aten::bmm``: ``a[B, M, K] @ b[B, K, N]``."""
    return matmul(a, b, out_dtype=out_dtype, twin=_twin(a))


def mv(a: Tensor, v: Tensor) -> Tensor:
    """``aten::mv``: ``a[M, K] @ v[K]``."""
    return mm(a, v[:, None])[:, 0]


def dot(u: Tensor, v: Tensor) -> Tensor:
    """``aten::dot``."""
    return mm(u[None], v[:, None])[0, 0]


def addmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``aten::addmm``: ``beta * c + alpha * (a @ b)``, float32 until one rounding at the end."""
    if alpha == beta == 1 and c.dim() == 1 and len(c) == b.shape[1]:
        return _linear(a, b.t(), c)
    return _plus(c, mm(a, b, torch.float32), beta, alpha, a.dtype)


def baddbmm(c: Tensor, a: Tensor, b: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``aten::baddbmm``: ``beta * c + alpha * (a @ b)`` for each of a batch."""
    return _plus(c, bmm(a, b, torch.float32), beta, alpha, a.dtype)


def addmv(c: Tensor, a: Tensor, v: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """``aten::addmv``: ``beta * c + alpha * (a @ v)``."""
    product = mm(a, v[:, None], torch.float32)[:, 0]
    return _plus(c, product, beta, alpha, a.dtype)


def _linear(
    x: Tensor, w: Tensor, bias: Tensor | None, out_dtype: torch.dtype | None = None
) -> Tensor:
    if 0 in (*x.shape, *w.shape):
        y = torch.zeros(len(x), len(w), dtype=out_dtype or x.dtype, device=x.device)
        return y if bias is None else y + bias
    return fixed_linear(x, w, bias, order=ORDER, out_dtype=out_dtype, twin=_twin(x))


def _plus(c: Tensor, y: Tensor, beta: Number, alpha: Number, dtype: torch.dtype) -> Tensor:
    # Products and sums are torch's and rounded one by one; with beta 0, c is not looked at.
    y = y if alpha == 1 else y * alpha
    return (y if beta == 0 else y + c.float() * beta).to(dtype)


def _twin(x: Tensor) -> bool:
    return x.device.type == "cpu"

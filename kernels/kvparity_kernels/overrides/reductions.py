"""Torch's sums, means, softmaxes and RMS norm in the fixed order, with aten's arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity_kernels.overrides import rows

Dims = int | Sequence[int] | None


def total(
    x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """``aten::sum``: reduced dimensions are walked in order, the last fastest."""
    return _reduce(x, dim, keepdim, dtype, mean=False)


def mean(
    x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """``aten::mean``: the sum over the count, rounded once to the dtype."""
    return _reduce(x, dim, keepdim, dtype, mean=True)


def softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """``aten::_softmax``."""
    return _softmax(x, dim, half_to_float, log=False)


def log_softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """``aten::_log_softmax``."""
    return _softmax(x, dim, half_to_float, log=True)


def safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """``aten::_safe_softmax``: rows of ``-inf`` give zeros."""
    x = x if dtype is None else x.to(dtype)
    nothing = (x == -math.inf).all(dim=dim, keepdim=True)
    return softmax(x, dim).masked_fill(nothing, 0.0)


def rms_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """``aten::rms_norm``: float32 throughout and one rounding, as torch's own."""
    return fused_rms_norm(x, shape, weight, eps)[0]


def fused_rms_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    """``aten::_fused_rms_norm``: the norm, and ``1 / sqrt(mean(x^2) + eps)`` in float32."""
    wide = x.float()
    dims = list(range(x.dim() - len(shape), x.dim()))
    # torch's own default: the least step of the dtype that it computes in.
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    inverse = 1.0 / torch.sqrt(mean(wide * wide, dims, True) + eps)
    y = wide * inverse
    return (y if weight is None else y * weight.float()).to(x.dtype), inverse


def _reduce(x: Tensor, dim: Dims, keepdim: bool, dtype: torch.dtype | None, mean: bool) -> Tensor:
    dtype = dtype or x.dtype
    if x.dim() == 0:
        x, dim, keepdim = x.reshape(1), None, False
    if not x.is_floating_point():
        x = x.to(dtype)
    given = [dim] if isinstance(dim, int) else list(dim or [])
    dims = sorted(d % x.dim() for d in given) or list(range(x.dim()))
    kept = [d for d in range(x.dim()) if d not in dims]
    count = math.prod(x.shape[d] for d in dims)
    flat = x.permute(*kept, *dims).reshape(math.prod(x.shape[d] for d in kept), count)
    y = rows.row_sum(
        flat, divisor=count if mean else 1.0, out_dtype=dtype, twin=x.device.type == "cpu"
    )
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    return y.reshape(shape if keepdim else [x.shape[d] for d in kept])


def _softmax(x: Tensor, dim: int, half_to_float: bool, log: bool) -> Tensor:
    moved = x.movedim(dim, -1) if x.dim() else x.reshape(1)
    y = rows.softmax(
        moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1]),
        log=log,
        out_dtype=torch.float32 if half_to_float else x.dtype,
        twin=x.device.type == "cpu",
    )
    y = y.reshape(moved.shape)
    return y.movedim(-1, dim).contiguous() if x.dim() else y.reshape(())

"""The float64 twins."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a[B, M, K] @ b[B, K, N]`` in float64."""
    return a.double() @ b.double()


def row_sum(x: Tensor, divisor: float) -> Tensor:
    """The sum of each row of ``x[r, n]`` over ``divisor``, in float64."""
    return x.double().sum(1) / divisor


def softmax(x: Tensor, *, log: bool) -> Tensor:
    """Softmax, or its logarithm, of each row of ``x[r, n]``, in float64."""
    return (torch.log_softmax if log else torch.softmax)(x.double(), 1)

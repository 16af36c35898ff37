"""The float64 twin of linear."""

from __future__ import annotations

import torch
from torch import Tensor


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x[M, K] @ w[N, K].T + bias[N]`` in float64: ``[M, N]``."""
    y = x.to(torch.float64) @ w.to(torch.float64).T
    return y if bias is None else y + bias.to(torch.float64)

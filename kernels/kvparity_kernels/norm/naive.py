"""The float64 twin of the RMS norm."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * w`` over the last dimension, in float64."""
    y = x.to(torch.float64)
    scale = torch.sqrt((y * y).mean(dim=-1, keepdim=True) + eps)
    return y / scale * w.to(torch.float64)

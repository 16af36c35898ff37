"""The float64 twin of the rotary embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def rope(x: Tensor, positions: Tensor, inv_freq: Tensor) -> Tensor:
    """Rotate-half on ``x[T, H, D]`` with angles and sines in float64."""
    angle = positions.to(torch.float64)[:, None] * inv_freq.to(torch.float64)
    cos, sin = torch.cos(angle)[:, None, :], torch.sin(angle)[:, None, :]
    low, high = x.to(torch.float64).chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)

"""The float64 twin of the embedding."""

from __future__ import annotations

import torch
from torch import Tensor


def embed(ids: Tensor, w: Tensor) -> Tensor:
    """Row ``ids[t]`` of ``w[V, H]`` in float64: ``[T, H]``."""
    return torch.stack([w[int(i)] for i in ids]).to(torch.float64)

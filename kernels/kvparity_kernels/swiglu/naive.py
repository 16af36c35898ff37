"""The float64 twin of the gated activation."""

from __future__ import annotations

import torch
from torch import Tensor


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``gate * sigmoid(gate) * up`` in float64."""
    g = gate.to(torch.float64)
    return g * torch.sigmoid(g) * up.to(torch.float64)

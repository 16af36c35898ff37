"""Tensors whose functions are torch's own: what a comparison may rest on."""

from __future__ import annotations

import torch
from torch import Tensor


def plain(x: Tensor) -> bool:
    """Whether a tensor has torch's own functions; a parameter has, another subclass need not."""
    return type(x) in (torch.Tensor, torch.nn.Parameter)

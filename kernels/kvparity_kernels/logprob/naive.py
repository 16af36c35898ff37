"""The float64 twin of the log probability."""

from __future__ import annotations

import torch
from torch import Tensor


def logprob(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """``log_softmax(logits / temperature)[row, targets[row]]`` in float64: ``[r]``."""
    z = logits.to(torch.float64) / temperature
    return torch.log_softmax(z, dim=-1).gather(1, targets[:, None])[:, 0]

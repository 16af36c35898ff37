"""What a difference would do to reinforcement learning: aggregates over logprob differences.

``d = rollout - rescore``: the logprob with which the token was drawn less the one it is trained
with, so PPO's importance ratio is ``e^-d``. The names follow the RL libraries that log them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLIP_LOW, CLIP_HIGH = 0.8, 1.2


@dataclass(frozen=True)
class Drift:
    """Aggregates over the compared tokens.

    ``max_abs_dlogp``: largest |d|. ``approx_kl0``: mean(e^d - 1 - d), in the form of Schulman's
    k3 estimator; it is never negative, and 0 only where every d is.
    ``clipfrac0``: share of tokens whose e^d lies outside [0.8, 1.2].
    """

    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float


def drift(rollout: Tensor, rescore: Tensor) -> Drift:
    """Aggregate two logprob vectors of equal length, in float64. Not empty."""
    d = rollout.double() - rescore.double()
    ratio = torch.exp(d)
    outside = ~((ratio >= CLIP_LOW) & (ratio <= CLIP_HIGH))  # NaN is outside
    return Drift(
        max_abs_dlogp=float(d.abs().max()),
        approx_kl0=float((torch.expm1(d) - d).mean()),
        clipfrac0=float(outside.double().mean()),
    )

"""What a difference would do to reinforcement learning: aggregates over logprob differences.

``d = rescore - rollout``, the log of the importance ratio: the trainer's logprob less that of the
policy that drew the token. The names follow the RL libraries that log them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLIP_LOW, CLIP_HIGH = 0.8, 1.2


@dataclass(frozen=True)
class Drift:
    """Aggregates over the compared tokens.

    ``max_abs_dlogp``: largest |d|. ``approx_kl0``: mean(e^d - 1 - d), Schulman's k3 estimator of
    KL(rollout || rescore), as the tokens are the rollout's.
    ``clipfrac0``: share of tokens whose e^d lies outside [0.8, 1.2].
    """

    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float


def drift(rollout: Tensor, rescore: Tensor) -> Drift:
    """Aggregate two logprob vectors of equal length, in float64. Not empty."""
    d = rescore.double() - rollout.double()
    ratio = torch.exp(d)
    outside = ~((ratio >= CLIP_LOW) & (ratio <= CLIP_HIGH))  # NaN is outside
    return Drift(
        max_abs_dlogp=float(d.abs().max()),
        approx_kl0=float((torch.expm1(d) - d).mean()),
        clipfrac0=float(outside.double().mean()),
    )

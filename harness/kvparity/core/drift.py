"""What a difference would do to reinforcement learning: aggregates over logprob differences.

This is the one place that says which way round: ``d = trainer - rollout``, the logprob with which
a token is trained less the one with which it was drawn. Tokens are drawn from the rollout, so
``e^d`` is the importance ratio and ``e^d - 1 - d`` Schulman's k3, whose mean over them estimates
KL(rollout || trainer). It is the sign of the libraries that log these numbers: verl
(``rollout_corr/k3_kl`` in verl/trainer/ppo/rollout_corr_helper.py), NeMo-RL (``gen_kl_error``,
docs/guides/grpo.md), prime-rl (``mismatch_kl``, prime_rl/trainer/rl/loss.py), slime
(``train_rollout_kl``, slime/backends/megatron_utils/loss.py), AReaL, and TRL
(``importance_sampling_ratio``, trl/trainer/grpo_trainer.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLIP_LOW, CLIP_HIGH = 0.8, 1.2


@dataclass(frozen=True)
class Drift:
    """Aggregates over the compared tokens; d is a difference of natural logarithms.

    ``max_abs_dlogp``: largest |d|. ``approx_kl0``: mean(e^d - 1 - d), Schulman's k3 (RL-Kernel
    gave it this name); it is never negative, and 0 only where every d is.
    ``clipfrac0``: share of tokens whose ratio e^d lies outside [0.8, 1.2].
    """

    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float


def drift(*, rollout: Tensor, trainer: Tensor) -> Drift:
    """Aggregate two logprob vectors of equal length, in float64. Not empty.

    ``rollout``: of the side that drew the tokens. ``trainer``: of the side that scores them again.
    """
    d = trainer.double() - rollout.double()
    ratio = torch.exp(d)
    outside = ~((ratio >= CLIP_LOW) & (ratio <= CLIP_HIGH))  # NaN is outside
    return Drift(
        max_abs_dlogp=float(d.abs().max()),
        approx_kl0=float((torch.expm1(d) - d).mean()),
        clipfrac0=float(outside.double().mean()),
    )

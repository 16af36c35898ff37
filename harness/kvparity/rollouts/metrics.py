"""How far two sides are apart, in float64. ``d = trainer - rollout`` (``core/drift.py`` says why).

k1 and k3: Schulman, *Approximating KL divergence* (joschu.net/blog/kl-approx.html), of
KL(rollout || trainer). ESS: (Σρ)² / Σρ² / n, Kish; ρ = e^d with d held to ±20 as verl does
(``SAFETY_BOUND``, verl/trainer/ppo/rollout_corr_helper.py), and ``clamped_*`` counts where that
acted: a clamped ESS looks fine while every token is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvparity.rollouts.tokens import Doubles, Tokens

CLAMP = 20.0
CLIP_LOW, CLIP_HIGH = 0.8, 1.2
ABS_PERCENTILES = (50.0, 90.0, 99.0, 99.9)
RATIO_PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)


@dataclass(frozen=True)
class Core:
    """The numbers that one token can decide: reported with and without the worst token."""

    mean_abs_d: float
    max_abs_d: float
    k1: float
    k3: float
    ess_tokens: float
    ess_sequences: float


@dataclass(frozen=True)
class Metrics:
    """All of them over the compared tokens. d in nats; shares from 0 to 1.

    ``abs_percentiles`` of |d|, ``ratio_percentiles`` of e^d: (percentile, value).
    ``worst``: index of the token with the largest |d|.
    """

    tokens: int
    sequences: int
    mean_d: float
    all: Core
    without_worst: Core | None
    worst: int
    abs_percentiles: tuple[tuple[float, float], ...]
    ratio_percentiles: tuple[tuple[float, float], ...]
    equal_bits: float
    outside_clip: float
    clamped_tokens: int
    clamped_sequences: int


def metrics(tokens: Tokens) -> Metrics:
    """Of at least one token.

    Raises:
        ValueError: there is none.
    """
    if not tokens.count:
        raise ValueError("no token is compared")
    d = tokens.d
    size = np.abs(d)
    worst = int(size.argmax())
    with np.errstate(over="ignore"):
        ratio = np.exp(d)
    sums = tokens.sums(d)
    return Metrics(
        tokens=tokens.count,
        sequences=len(tokens.names),
        mean_d=float(d.mean()),
        all=_core(tokens, d),
        without_worst=_without(tokens, worst),
        worst=worst,
        abs_percentiles=_percentiles(size, ABS_PERCENTILES),
        ratio_percentiles=_ratios(_percentiles(d, RATIO_PERCENTILES)),
        equal_bits=float(tokens.equal.mean()),
        outside_clip=float(1 - ((ratio >= CLIP_LOW) & (ratio <= CLIP_HIGH)).mean()),
        clamped_tokens=int((size > CLAMP).sum()),
        clamped_sequences=int((np.abs(sums) > CLAMP).sum()),
    )


def _without(tokens: Tokens, worst: int) -> Core | None:
    if tokens.count == 1:
        return None
    rest = tokens.without(worst)
    return _core(rest, rest.d)


def _core(tokens: Tokens, d: Doubles) -> Core:
    return Core(
        mean_abs_d=float(np.abs(d).mean()),
        max_abs_d=float(np.abs(d).max()),
        k1=0.0 - float(d.mean()),
        k3=k3(d),
        ess_tokens=effective_sample_size(d),
        ess_sequences=effective_sample_size(tokens.sums(d)),
    )


def k3(d: Doubles) -> float:
    """mean(e^d - 1 - d), without the cancellation of e^d - 1."""
    with np.errstate(over="ignore"):
        return float((np.expm1(d) - d).mean())


def effective_sample_size(log_weights: Doubles) -> float:
    """(Σρ)² / Σρ² / n, from 1/n to 1."""
    weights = np.exp(np.clip(log_weights, -CLAMP, CLAMP))
    return float(weights.sum() ** 2 / (weights**2).sum() / weights.size)


def _ratios(of_d: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """e^d is monotone: its percentiles are those of d, which are finite."""
    with np.errstate(over="ignore"):
        return tuple((at, float(np.exp(d))) for at, d in of_d)


def _percentiles(values: Doubles, at: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    found = np.percentile(values, at)
    return tuple((each, float(value)) for each, value in zip(at, found, strict=True))

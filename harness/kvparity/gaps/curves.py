"""The gap along something: by position, by logprob, by sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvparity.rollouts.metrics import k3
from kvparity.rollouts.tokens import Doubles, Tokens

LOGPROB_EDGES = (-np.inf, -16.0, -8.0, -4.0, -2.0, -1.0, -0.5, -0.1, 0.0)
"""Of the rollout's logprob: rare tokens first. The last bin has 0.0, too."""


@dataclass(frozen=True)
class Bin:
    """Tokens from ``low`` to below ``high``. d = trainer - rollout; shares from 0 to 1."""

    low: float
    high: float
    tokens: int
    mean_d: float
    mean_abs_d: float
    max_abs_d: float
    k3: float
    equal_bits: float


@dataclass(frozen=True)
class OneSequence:
    """The gap of one sequence."""

    sequence: str
    tokens: int
    mean_d: float
    mean_abs_d: float
    max_abs_d: float
    k3: float
    equal_bits: float


def by_position(tokens: Tokens) -> tuple[Bin, ...]:
    """Bins that double in length: 0-15, 16-31, 32-63, …"""
    last = int(tokens.positions.max(initial=0))
    edges = [0.0, 16.0]
    while edges[-1] <= last:
        edges.append(edges[-1] * 2)
    return _bins(tokens, tokens.positions.astype(np.float64), tuple(edges))


def by_logprob(tokens: Tokens) -> tuple[Bin, ...]:
    """Bins of the rollout's logprob."""
    return _bins(tokens, tokens.rollout.astype(np.float64), LOGPROB_EDGES)


def _bins(tokens: Tokens, along: Doubles, edges: tuple[float, ...]) -> tuple[Bin, ...]:
    at = np.clip(np.searchsorted(edges, along, side="right") - 1, 0, len(edges) - 2)
    d, equal = tokens.d, tokens.equal
    found = []
    for number in range(len(edges) - 1):
        inside = at == number
        if inside.any():
            found.append(Bin(edges[number], edges[number + 1], *_numbers(d[inside], equal[inside])))
    return tuple(found)


def by_sequence(tokens: Tokens) -> tuple[OneSequence, ...]:
    """All sequences, in the order of the recording."""
    d, equal = tokens.d, tokens.equal
    bounds = zip(tokens.names, tokens.starts, tokens.starts[1:], strict=False)
    return tuple(
        OneSequence(name, *_numbers(d[start:stop], equal[start:stop]))
        for name, start, stop in bounds
    )


def _numbers(
    d: Doubles, equal: npt.NDArray[np.bool_]
) -> tuple[int, float, float, float, float, float]:
    size = np.abs(d)
    share = float(equal.mean())
    return d.size, float(d.mean()), float(size.mean()), float(size.max()), k3(d), share

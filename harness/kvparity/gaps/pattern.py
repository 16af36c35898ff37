"""What a pattern of d is, and what both kinds of them compute."""

from __future__ import annotations

from dataclasses import dataclass

from kvparity.rollouts.tokens import Doubles

FEWEST = 24
"""Tokens below which no pattern is looked for."""


@dataclass(frozen=True)
class Pattern:
    """``name``: of the pattern. ``evidence``: measured. ``confirm``: what to try next."""

    name: str
    cause: str
    evidence: str
    confirm: str


def line(x: Doubles, y: Doubles) -> tuple[float, float]:
    """Slope of the least-squares line, and the share of y's variance that it explains."""
    x, y = x - x.mean(), y - y.mean()
    xx, yy = float(x @ x), float(y @ y)
    if xx == 0 or yy == 0:
        return 0.0, 0.0
    slope = float(x @ y) / xx
    return slope, slope * slope * xx / yy

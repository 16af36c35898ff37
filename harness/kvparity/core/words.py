"""Measures and limits in words, the same in a verdict's reason and in a report."""

from __future__ import annotations

from collections.abc import Mapping

UNFINITE = "NaN or Inf in an active token"
"""Why a case differs where a compared row is no finite number, on either side."""

NO_KEY = (
    "such a row pads the batch of an engine: it sees no key, so out is 0 and lse -inf there; a "
    "pair that is never given one says empty: never"
)
"""What a row without a key should give, and how a contract says that there is none."""


NO_LSE = "this defect is built from the LSE, which the pair does not return"
"""Why a defect of the reduction order cannot be planted in a pair."""


def of_allowed(measured: Mapping[str, float | str], limits: Mapping[str, float]) -> str:
    """``max_abs 0.0019 of 0.02 allowed``, for every limit."""
    return ", ".join(
        f"{name} {rounded(measured[name])} of {limit:.3g} allowed" for name, limit in limits.items()
    )


def some(count: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def rounded(value: float | str) -> str:
    """Three digits; a value without digits by its name."""
    return value if isinstance(value, str) else f"{value:.3g}"


def digits(value: float | str) -> str:
    """All digits of a float32; a value without digits by its name."""
    return value if isinstance(value, str) else f"{value:.9g}"

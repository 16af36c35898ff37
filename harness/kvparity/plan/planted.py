"""Where a control was planted, and what an accuracy check sees of a fault that both sides share."""

from __future__ import annotations

from pydantic import model_validator

from kvparity.core.values import Finite, Value


class Reach(Value):
    """For a fault that both kernels of a pair share: what one accuracy check sees of it.

    Both measures are over everything that the check compares, or up to where the fault was seen.
    """

    check: str
    """an accuracy check that it was measured against; other controls have no `reach`"""
    dtype: str
    """in this execution format"""
    kv_cache: str
    """and this cache format"""
    limit: Finite
    """the check's `max_abs` there"""
    measured: Finite
    """the error of exact rows with the fault, rounded to the format, over all that the check
    compares or up to where it was caught"""
    rounding: Finite
    """the error of exact rows without the fault, rounded in the same way: no limit below it can
    hold"""
    seen: bool
    """whether it is over the limit"""

    @model_validator(mode="after")
    def _follows(self) -> Reach:
        if self.seen is not (self.measured > self.limit):
            raise ValueError("it does not follow from what was measured")
        return self


class Formats(Value):
    """In which formats a control was planted."""

    execution: str
    """in this format"""
    kv_cache: str
    """and this cache format"""
    device: str | None = None
    """and with the products of this architecture"""

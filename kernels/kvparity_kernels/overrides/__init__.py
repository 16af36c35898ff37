"""Torch's reductions swapped for fixed-order ones, for models that are not this project's."""

from kvparity_kernels.overrides.guard import Invariant, invariant
from kvparity_kernels.overrides.report import NotInvariantError, Report

__all__ = ["Invariant", "NotInvariantError", "Report", "invariant"]

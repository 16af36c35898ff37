"""Torch's reductions swapped for fixed-order ones, for models that are not this project's."""

from kvparity_kernels.overrides.guard import Invariant, invariant
from kvparity_kernels.overrides.report import InvariantReport, NotInvariantError

__all__ = ["Invariant", "InvariantReport", "NotInvariantError", "invariant"]

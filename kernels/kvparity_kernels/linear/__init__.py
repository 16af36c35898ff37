"""Linear layers whose rows do not depend on the batch."""

from kvparity_kernels.linear.api import linear

__all__ = ["linear"]

"""RMS norm whose rows do not depend on the batch."""

from kvparity_kernels.norm.api import rms_norm

__all__ = ["rms_norm"]

"""The token embedding."""

from kvparity_kernels.embedding.api import embed

__all__ = ["embed"]

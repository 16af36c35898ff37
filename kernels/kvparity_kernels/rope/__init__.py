"""Rotary position embedding whose rows do not depend on the batch."""

from kvparity_kernels.rope.api import rope, rotate, tables

__all__ = ["rope", "rotate", "tables"]

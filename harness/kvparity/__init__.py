"""Proves, bit for bit, that a rollout and its rescoring compute the same numbers."""

__version__ = "0.1.0"

"""Other libraries' attention and operations, with the signatures of this project's kernels."""

from kvparity.decoder.backends.table import ATTENTION, OPERATIONS, attention_ops, operations

__all__ = ["ATTENTION", "OPERATIONS", "attention_ops", "operations"]

"""Other libraries' attention and operations, called as this project's kernels are."""

from kvparity.subjects.decoder.backends.table import (
    ATTENTION,
    OPERATIONS,
    Backends,
    attention_ops,
    operations,
)

__all__ = ["ATTENTION", "OPERATIONS", "Backends", "attention_ops", "operations"]

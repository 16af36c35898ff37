"""Other libraries' attention and operations, with the signatures of this project's kernels."""

from kvparity.subjects.decoder.backends.table import (
    ATTENTION,
    OPERATIONS,
    Backends,
    attention_ops,
    operations,
)

__all__ = ["ATTENTION", "OPERATIONS", "Backends", "attention_ops", "operations"]

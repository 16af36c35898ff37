"""The names by which counts of what ran tell backends and operations of other libraries."""

from __future__ import annotations

BACKEND = "backend."
"""What the names of attention backends begin with."""

TORCH = "operations.torch"
"""What each of torch's operations beside attention counts as."""

"""Triton kernels whose reductions run in one fixed order, each beside its float64 twin.

Nothing is imported here: ``kvparity_kernels.runtime`` must be able to choose between the
interpreter and compiled kernels before any kernel module is loaded. ``invariant`` is imported when
it is first asked for, and loads kernels only when a tensor on a GPU needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvparity_kernels.overrides import invariant as invariant


def __getattr__(name: str) -> Any:
    if name == "invariant":
        from kvparity_kernels.overrides import invariant

        return invariant
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

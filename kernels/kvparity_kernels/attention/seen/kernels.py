"""Which keys the rows of a program see, and the tiles of a split in which they lie."""

from __future__ import annotations

from kvparity_kernels import launch as _launch  # noqa: F401 - settles how kernels are decorated

# isort: split
import triton
import triton.language as tl


@triton.jit
def first_of_last(kv_len, FIRST, window, b):
    # The first key that the last row of sequence b sees.
    first = tl.maximum(kv_len - window, 0)
    if FIRST is not None:
        first = tl.maximum(first, tl.load(FIRST + b))
    return first


@triton.jit
def tiles_seen(first, lowest, highest, SPLIT: tl.constexpr, TILE: tl.constexpr):
    """From which to which tile of the split at ``first`` there is a key of lowest .. highest."""
    begin = tl.maximum(lowest - first, 0) // TILE
    end = tl.minimum(tl.cdiv(tl.maximum(highest + 1 - first, 0), TILE), SPLIT // TILE)
    return begin, end

"""Bits, not values: integer views, distances in ulps, and how a number is shown."""

from __future__ import annotations

import torch
from torch import Tensor

# Bound before any subject is imported: what compares is not looked up where a subject could put
# something else in its place.
_ne, _view, _contiguous = torch.ne, Tensor.view, Tensor.contiguous
_INTEGER = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}
_INTEGER[torch.bfloat16] = torch.int16


def bits(x: Tensor) -> Tensor:
    """The bit patterns of a float tensor as signed integers of the same width, a view."""
    if x.dtype not in _INTEGER:
        raise TypeError(f"no bit view for {x.dtype}")
    return _view(_contiguous(x), _INTEGER[x.dtype])


def differing(a: Tensor, b: Tensor) -> Tensor:
    """Where the bit patterns differ. -0 and +0 differ; two NaNs of one pattern do not."""
    if a.dtype != b.dtype or a.shape != b.shape:
        raise TypeError(f"{a.dtype} {tuple(a.shape)} against {b.dtype} {tuple(b.shape)}")
    return _ne(bits(a), bits(b))


def ulps(a: Tensor, b: Tensor) -> Tensor:
    """Distance in units in the last place, int64: how many floats lie between, plus one.

    Counted on the ordered integers of the two patterns, so that -0 and +0 are one step apart.
    Meaningless for NaN, which :func:`differing` and the finite check report. A float64 distance
    beyond int64 is given as the largest int64.
    """
    left, right = _ordered(bits(a)), _ordered(bits(b))
    distance = left - right
    wrapped = (left > right) != (distance > 0)
    return torch.where(wrapped, torch.iinfo(torch.int64).max, distance.abs())


def _ordered(pattern: Tensor) -> Tensor:
    """A monotone map from bit patterns to int64: negative floats mirrored below -1."""
    wide = pattern.to(torch.int64)
    low = -(2 ** (8 * pattern.element_size() - 1))
    return torch.where(wide < 0, low - wide - 1, wide)


def pattern(x: Tensor) -> str:
    """The bit pattern of a one-element float tensor, as ``0x…`` with all its digits."""
    width = x.element_size()
    return f"0x{int(bits(x)) & (2 ** (8 * width) - 1):0{2 * width}x}"

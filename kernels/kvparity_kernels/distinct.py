"""A product's last rows and columns that are all alike, computed once: for speed alone.

A tile has as many rows as a program, and hardly any of them in decode: the others are padding, as
are the keys past the end. Each element of a product depends on its own row and column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kvparity_kernels.fixed_arithmetic import Array

Product = Callable[[Array, Array, Array], Array]
"""``start + a @ b`` of ``[M, K]``, ``[K, N]`` and ``[M, N]``."""


def once(product: Product, a: Array, b: Array, start: Array) -> Array:
    """``product(a, b, start)``, where each element depends on its row, its column and its start."""
    if a.ndim != 2:
        return product(a, b, start)
    left, right, before = _bits(a), _bits(b), _bits(start)
    rows = _kept((left == left[-1]).all(1) & (before == before[-1]).all(1))
    columns = _kept((right == right[:, -1:]).all(0) & (before == before[:, -1:]).all(0))
    found = product(a[:rows], b[:, :columns], start[:rows, :columns])
    for axis, size in enumerate(start.shape):
        found = found.take(np.minimum(np.arange(size), found.shape[axis] - 1), axis)
    return found


def _kept(alike: Array) -> int:
    """How many to compute; ``alike``: which are equal to the last."""
    others = np.flatnonzero(~alike)
    return int(others[-1]) + 2 if len(others) else 1


def _bits(x: Array) -> Array:
    """NaN is equal to itself, and -0 not to 0."""
    return x.view(f"u{x.itemsize}")

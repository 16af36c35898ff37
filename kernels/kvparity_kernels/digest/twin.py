"""The digest on the CPU: numpy's unsigned 64-bit integers, which wrap."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity_kernels.arguments import INTEGERS

# Words in flight at a time. The sum wraps and has no order, so this bounds memory and no more.
COLUMNS = 1 << 14
ELEMENTS = 1 << 18


def row_digest(x: Tensor) -> Tensor:
    """Bit-equal to the kernel; ``x[r, W]`` on the CPU, any strides."""
    bits = x.detach().view(INTEGERS[x.element_size()]).numpy()
    rows, width = bits.shape
    out = np.zeros(rows, np.uint64)
    step = max(1, ELEMENTS // min(max(width, 1), COLUMNS))
    for c in range(0, width, COLUMNS):
        place = _places(c, min(c + COLUMNS, width))
        for r in range(0, rows, step):
            out[r : r + step] += _sum(bits[r : r + step, c : c + COLUMNS], place)
    return torch.from_numpy(out.view(np.int64))


@lru_cache(maxsize=64)
def _places(start: int, stop: int) -> NDArray[np.uint64]:
    """The columns, each in the upper half of a word. A model has few widths and many rows."""
    return np.arange(start, stop, dtype=np.uint64) << np.uint64(32)


def _sum(bits: NDArray[Any], place: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = np.ascontiguousarray(bits).view(f"u{bits.itemsize}") | place
    shifted = np.empty_like(z)
    z += np.uint64(0x9E3779B97F4A7C15)
    z ^= np.right_shift(z, np.uint64(30), out=shifted)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    total: NDArray[np.uint64] = z.sum(axis=1, dtype=np.uint64)
    return total

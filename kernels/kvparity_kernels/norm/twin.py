"""The CPU twin of the RMS norm: the interpreter's order, vectorised over rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, to_numpy
from kvparity_kernels.fixed_arithmetic import tree_sum


def rms_norm(x: Tensor, w: Tensor, eps: float, block: int) -> Tensor:
    """Squares are added to ``block`` lanes ascending; the lanes are summed as the kernel does."""
    values = to_numpy(x)
    inverse = _inverse(values, eps, block)
    normal = from_numpy(values * inverse, x.dtype)
    return from_numpy(to_numpy(normal) * to_numpy(w), x.dtype)


def _inverse(values: NDArray[np.float32], eps: float, block: int) -> NDArray[np.float32]:
    rows, width = values.shape
    lanes = np.zeros((rows, block), np.float32)
    for start in range(0, width, block):
        part = values[:, start : start + block]
        lanes[:, : part.shape[1]] += part * part
    mean = tree_sum(lanes, 1)[:, None] / np.float32(width)
    return np.reciprocal(np.sqrt(mean + np.float32(eps)))

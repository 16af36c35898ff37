"""The CPU twins of row sums and softmax: the interpreter's order, vectorised over rows.

The kernels add into 1024 lanes and halve them to one. A twin takes fewer lanes for a short row:
the lanes left out hold +0, and adding +0 to a number that is not -0 changes no bit (a lane starts
at +0, so it never holds -0).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, next_power_of_2, to_numpy
from kvparity_kernels.fixed_arithmetic import tree_sum

# Elements converted to float32 at a time; bounds memory and changes no bit.
ELEMENTS = 1 << 20
Floats = NDArray[np.float32]


def row_sum(x: Tensor, divisor: float, block: int, out_dtype: torch.dtype) -> Tensor:
    """The sum of each row of ``x[r, n]`` over ``divisor``: ``[r]``."""
    return _by_rows(x, out_dtype, lambda z: np.divide(_total(z, block), np.float32(divisor)))


def softmax(x: Tensor, log: bool, block: int, out_dtype: torch.dtype) -> Tensor:
    """Softmax, or its logarithm, of each row of ``x[r, n]``."""
    return _by_rows(x, out_dtype, lambda z: _softmax(z, log, block))


def _by_rows(x: Tensor, dtype: torch.dtype, function: Callable[[Floats], Floats]) -> Tensor:
    step = max(1, ELEMENTS // x.shape[1])
    # Infinities and NaN are values here, as in the kernel: unwarned.
    with np.errstate(all="ignore"):
        parts = [
            from_numpy(function(to_numpy(x[r : r + step])), dtype) for r in range(0, len(x), step)
        ]
    return torch.cat(parts)


def _total(z: Floats, block: int) -> Floats:
    """Lane ``j`` adds columns ``j, j + block, ...`` ascending; then the lanes are halved."""
    block = min(block, next_power_of_2(z.shape[1]))
    lanes = np.zeros((z.shape[0], block), np.float32)
    for start in range(0, z.shape[1], block):
        part = z[:, start : start + block]
        lanes[:, : part.shape[1]] += part
    return tree_sum(lanes, 1)


def _softmax(z: Floats, log: bool, block: int) -> Floats:
    top: Floats = np.fmax.reduce(z, axis=1, keepdims=True, initial=np.float32(-np.inf))
    z = z - top
    powers = np.exp(z)
    total = _total(powers, block)[:, None]
    return np.subtract(z, np.log(total)) if log else np.divide(powers, total)

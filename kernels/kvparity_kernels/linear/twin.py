"""The CPU twin of linear: the interpreter's order, vectorised over rows and columns."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity_kernels import device_model
from kvparity_kernels.arguments import from_numpy, to_numpy

# Bounds on one block, chosen for speed alone: an accumulator that stays in the first-level cache,
# products that stay in the second. No bit depends on them.
ACCUMULATOR = 8192
PRODUCTS = 1 << 17


def linear(x: Tensor, w: Tensor, bias: Tensor | None, out_dtype: torch.dtype) -> Tensor:
    """Accumulate ascending over K in float32, product and sum rounded separately.

    The chain of one element is ``acc = acc + x[k] * w[k]`` from zero, then the bias, then one
    rounding to ``out_dtype``. Under the model of a device the products are the model's.
    """
    rows, columns = x.shape[0], w.shape[0]
    left, right = to_numpy(x.T), to_numpy(w.T)  # [K, M], [K, N]
    out = np.empty((rows, columns), np.float32)
    if device_model.in_force() is not None:
        start, operand = np.zeros_like(out), str(x.dtype).removeprefix("torch.")
        out = device_model.dot(left.T, right, start, operand)
        return from_numpy(out if bias is None else out + to_numpy(bias), out_dtype)
    step_n = min(columns, ACCUMULATOR)
    step_m = max(1, ACCUMULATOR // step_n)
    for n in range(0, columns, step_n):
        b = right[:, n : n + step_n]
        for m in range(0, rows, step_m):
            out[m : m + step_m, n : n + step_n] = _block(left[:, m : m + step_m], b)
    if bias is not None:
        out += to_numpy(bias)
    return from_numpy(out, out_dtype)


def _block(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """``left[K, m]``, ``right[K, n]`` -> ``[m, n]``.

    ``add.reduce`` over the *first* axis of a C-ordered array adds whole slices one after the
    other; numpy sums pairwise only along the fastest axis. A slice of a single element would make
    the first axis the fastest, so it is computed as two equal columns.
    """
    depth, m, n = left.shape[0], left.shape[1], right.shape[1]
    if m * n == 1:
        return _block(left, np.repeat(right, 2, axis=1))[:, :1]
    acc = np.zeros((m, n), np.float32)
    step = max(1, PRODUCTS // (m * n))
    for k in range(0, depth, step):
        stop = min(k + step, depth)
        chain = np.empty((stop - k + 1, m, n), np.float32)
        chain[0] = acc
        np.multiply(left[k:stop, :, None], right[k:stop, None, :], out=chain[1:])
        np.add.reduce(chain, axis=0, out=acc)
    return acc

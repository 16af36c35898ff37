"""The CPU twins of the rotary embedding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, to_numpy


def tables(positions: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """``cos`` and ``sin`` of ``float32(position) * inv_freq``: float32 ``[T, D/2]`` each.

    numpy's sine and cosine are those of the interpreter; torch's differ in last bits between the
    vector lanes and the tail of a tensor, which would tie an angle to its place in the batch.
    """
    angle = positions.numpy().astype(np.float32)[:, None] * to_numpy(inv_freq)
    return from_numpy(np.cos(angle), torch.float32), from_numpy(np.sin(angle), torch.float32)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Products and sums rounded separately in float32, then once to the dtype of ``x``."""
    half = x.shape[-1] // 2
    values = to_numpy(x)
    low, high = values[..., :half], values[..., half:]
    c, s = to_numpy(cos)[:, None, :], to_numpy(sin)[:, None, :]
    out = np.empty_like(values)
    np.subtract(low * c, high * s, out=out[..., :half])
    np.add(high * c, low * s, out=out[..., half:])
    return from_numpy(out, x.dtype)

"""The CPU twin of the gated activation."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, to_numpy


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """The kernel's formula step by step, with numpy's exponential (the interpreter's)."""
    g, u = to_numpy(gate), to_numpy(up)
    e = np.exp(-np.abs(g))
    top = np.where(g >= 0, np.float32(1.0), e)
    return from_numpy(g * (top / (np.float32(1.0) + e)) * u, gate.dtype)

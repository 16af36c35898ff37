"""The CPU twin of the log probability: the interpreter's order, vectorised over rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, to_numpy
from kvparity_kernels.fixed_arithmetic import tree_sum

# Logits converted to float32 at a time; bounds memory and changes no bit.
ELEMENTS = 1 << 20


def logprob(logits: Tensor, targets: Tensor, temperature: float, part: int) -> Tensor:
    """Each ``part`` columns summed as a tree below their own maximum, then the parts ascending."""
    rows = max(1, ELEMENTS // logits.shape[1])
    parts = [
        _rows(logits[r : r + rows], targets[r : r + rows], temperature, part)
        for r in range(0, logits.shape[0], rows)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float32)


def _rows(logits: Tensor, targets: Tensor, temperature: float, part: int) -> Tensor:
    # A row without one finite logit has no log probability: NaN, here as in the kernel, unwarned.
    with np.errstate(invalid="ignore", divide="ignore"):
        z = to_numpy(logits) / np.float32(temperature)
        tops, sums = [], []
        for start in range(0, z.shape[1], part):
            piece = z[:, start : start + part]
            top = np.fmax.reduce(piece, axis=1, initial=np.float32(-np.inf))
            shift = np.where(top == -np.inf, np.float32(0), top)[:, None]
            lanes = np.zeros((z.shape[0], part), np.float32)
            lanes[:, : piece.shape[1]] = np.exp(piece - shift)
            tops.append(top)
            sums.append(tree_sum(lanes, 1))
        top = np.fmax.reduce(tops, axis=0)
        total = np.zeros_like(top)
        for below, each in zip(tops, sums, strict=True):
            total += each * np.exp(below - top)
        chosen = np.take_along_axis(z, targets.numpy()[:, None], axis=1)
        result = (chosen[:, 0] - top) - np.log(total)
    return from_numpy(result, torch.float32)

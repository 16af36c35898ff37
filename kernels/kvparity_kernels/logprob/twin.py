"""The CPU twin of the log probability: the interpreter's order, vectorised over rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kvparity_kernels.arguments import from_numpy, to_numpy
from kvparity_kernels.fixed import tree_sum

# Logits converted to float32 at a time; bounds memory and changes no bit.
ELEMENTS = 1 << 20


def logprob(logits: Tensor, targets: Tensor, temperature: float, block: int) -> Tensor:
    """Lane ``j`` of ``block`` adds the exponentials of columns ``j, j + block, ...`` ascending."""
    rows = max(1, ELEMENTS // logits.shape[1])
    parts = [
        _rows(logits[r : r + rows], targets[r : r + rows], temperature, block)
        for r in range(0, logits.shape[0], rows)
    ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float32)


def _rows(logits: Tensor, targets: Tensor, temperature: float, block: int) -> Tensor:
    # A row without one finite logit has no log probability: NaN, here as in the kernel, unwarned.
    with np.errstate(invalid="ignore", divide="ignore"):
        z = to_numpy(logits) / np.float32(temperature)
        top = np.fmax.reduce(z, axis=1, keepdims=True, initial=np.float32(-np.inf))
        lanes = np.zeros((z.shape[0], block), np.float32)
        for start in range(0, z.shape[1], block):
            part = z[:, start : start + block]
            lanes[:, : part.shape[1]] += np.exp(part - top)
        chosen = np.take_along_axis(z, targets.numpy()[:, None], axis=1)
        result = (chosen - top) - np.log(tree_sum(lanes, 1)[:, None])
    return from_numpy(np.ascontiguousarray(result[:, 0]), torch.float32)

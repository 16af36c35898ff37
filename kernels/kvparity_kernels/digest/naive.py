"""The digest in Python's own integers, one element at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels.arguments import INTEGERS

MASK = (1 << 64) - 1


def mix(word: int) -> int:
    """The output function of splitmix64 (Steele, Lea, Flood 2014), a bijection on 64 bits."""
    z = (word + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def row_digest(x: Tensor) -> Tensor:
    """``sum over columns c of mix(c * 2^32 + bits(x[r, c]))`` modulo 2^64, as int64 ``[r]``."""
    size = x.element_size()
    bits = x.contiguous().view(INTEGERS[size]).tolist()
    digests = []
    for row in bits:
        words = [(c << 32) | (b & ((1 << (8 * size)) - 1)) for c, b in enumerate(row)]
        total = sum(map(mix, words)) & MASK
        digests.append(total - (1 << 64) if total >> 63 else total)
    return torch.tensor(digests, dtype=torch.int64)

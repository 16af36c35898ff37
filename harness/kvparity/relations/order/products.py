"""In which order Q K is added over the head dimension, seen through the scores."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.encoding import read_counts
from kvparity.relations.order.errors import NotMeasured
from kvparity.relations.order.recover import Pairs
from kvparity.relations.order.sides import Asking, Side, places

_SPAN = {torch.float32: 16.0, torch.bfloat16: 32.0, torch.float16: 8.0}  # natural log of weights


class ProductOrder(Asking):
    """Sizes of the partial sums of Q K. One key of one key head asks one pair of dimensions.

    The query is constant and the key holds units, +mask and -mask, so its score counts survivors;
    a column of V that is one at this key alone shows its weight. Key 0 scores nothing and one key
    has no masks: between these two the score is read, whatever the kernel does with the scale,
    which is the nearest power of four here.
    """

    def __init__(self, side: Side, *, turn: int = 0) -> None:
        half = torch.float16 in (side.out, side.stored)
        self.side, self.mask, self.unit, self.query = masked(side, half=half)
        self.turn, self.n = turn, side.heads.dim
        self.room = min(side.keys, self.n) - 2

    def __call__(self, pairs: Pairs) -> NDArray[np.int64]:
        """Sizes of the partial sums in which the pairs of dimensions meet."""
        once = self.side.batch * self.side.heads.kv * self.room
        parts = [self._launch(pairs[at : at + once]) for at in range(0, len(pairs), once)]
        return np.concatenate(parts)

    def _launch(self, pairs: Pairs) -> NDArray[np.int64]:
        side = self.side
        slot, place = np.divmod(np.arange(len(pairs)), self.room)
        b, g = places(side.batch, side.heads.kv, turn=self.turn)[slot].T
        key = 2 + places(side.keys - 2, turn=self.turn)[place, 0]
        column = 2 + place
        k, v = side.values(), side.values()
        k[:, 1] = self.unit
        v[:, 0, :, 0] = v[:, 1, :, 1] = 1.0
        k[b, key, g] = self.unit
        k[b, key, g, pairs[:, 0]] = self.mask
        k[b, key, g, pairs[:, 1]] = -self.mask
        v[b, key, g, column] = 1.0
        q = torch.full((side.batch, side.heads.query, side.heads.dim), self.query)
        found = scores(side, side.alike(side.run(q, k, v).out))
        counts = found[b, g, column] / found[b, g, 1] * self.n
        return self.n - read_counts(counts, f"{side.which}, products", self.n)


def masked(side: Side, *, half: bool) -> tuple[Side, float, float, float]:
    """The side with a round scale, a mask and a unit of one factor, and the size of the other.

    ``half``: the factor with the mask is float16. Raises ``NotMeasured`` where no probe has room.
    """
    dim = side.heads.dim
    if side.keys < 3 or dim < 3:
        raise NotMeasured("fewer than three keys or dimensions leave no room for a probe")
    side = with_round_scale(side)
    most = span(side) / (dim * side.subject.scale)  # of a product of both factors
    if not half:
        return side, 2.0**60, 1.0, below(most)
    mask = 2.0**15
    unit = below(mask * 2.0**-25 / dim) / 2
    return side, mask, unit, min(2.0**15, below(most / unit))


def with_round_scale(side: Side) -> Side:
    """The side with the nearest power of four as its scale, and room for what is read there.

    A kernel may put the root of the scale on both sides; masks need powers of two there too.
    """
    scale = 4.0 ** round(math.log(side.subject.scale, 4))
    return side.reaching(-span(side) / math.log(2)).changed(scale=scale)


def span(side: Side) -> float:
    """The highest score that is asked for: the natural logarithm of a weight."""
    return _SPAN[side.out]


def scores(side: Side, weights: Tensor) -> Tensor:
    """Scores (float64) of keys whose weights are in the last dimension, that of the first 0.

    They are those before a softcap.
    """
    logs = weights.double().log()
    found, cap = logs - logs[..., :1], side.subject.softcap
    return torch.atanh(found / cap) * cap if cap else found


def below(x: float) -> float:
    """The largest power of two that is at most ``x``."""
    return 2.0 ** math.floor(math.log2(x))

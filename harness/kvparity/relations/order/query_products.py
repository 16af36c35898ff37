"""In which order Q K is added where keys are codes, which hold no mask: the query holds them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kvparity.relations.order.encoding import read_counts
from kvparity.relations.order.products import masked, scores
from kvparity.relations.order.recover import Pairs
from kvparity.relations.order.sides import Asking, Side, places


class QueryProducts(Asking):
    """Sizes of the partial sums of Q K. One query head asks one pair of dimensions.

    It holds units, and +mask and -mask at the pair; a key of equal numbers scores what survives.
    Key 0 scores nothing; key 1 has zeros where any head of its group has a mask, so it scores all
    the others.
    """

    def __init__(self, side: Side, *, turn: int = 0) -> None:
        half = side.out == torch.float16
        self.side, self.mask, self.unit, self.key = masked(side, half=half)
        self.turn, self.n = turn, side.heads.dim
        self.patterns = min(side.group, max(self.n // 4, 1))

    def __call__(self, pairs: Pairs) -> NDArray[np.int64]:
        """Sizes of the partial sums in which the pairs of dimensions meet."""
        where = places(self.side.batch, self.side.heads.kv, self.patterns, turn=self.turn)
        once = len(where)
        parts = [self._launch(pairs[at : at + once], where) for at in range(0, len(pairs), once)]
        return np.concatenate(parts)

    def _launch(self, pairs: Pairs, where: Pairs) -> NDArray[np.int64]:
        side, (i, j), (b, g, r) = self.side, pairs.T, where[: len(pairs)].T
        key = 2 + self.turn % (side.keys - 2)
        q = torch.full((side.batch, side.heads.kv, side.group, side.heads.dim), self.unit)
        q[b, g, r, i], q[b, g, r, j] = self.mask, -self.mask
        k, v = side.values(), side.values()
        k[:, 1] = k[:, key] = self.key
        k[b, 1, g, i] = k[b, 1, g, j] = 0.0
        whole = (k[:, 1] != 0).sum(-1)[b, g].double()
        for column, at in enumerate((0, 1, key)):
            v[:, at, :, column] = 1.0
        out = side.run(q.flatten(1, 2), k, v).out
        heads = out.view(side.batch, side.heads.kv, side.group, side.heads.dim)
        found = scores(side, heads[b, g, r, :3])
        counts = found[:, 2] / found[:, 1] * whole
        return self.n - read_counts(counts, f"{side.which}, products", self.n)

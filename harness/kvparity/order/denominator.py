"""In which order the softmax denominator is added over the keys."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.order.errors import NotMeasured
from kvparity.order.sides import COLD, Side, places
from kvparity.order.triples import Triples

_SMALL = -24.5  # log2: one is swallowed by 1, two together are not, whatever the rounding of exp


class Denominator:
    """Whether the weights of i and j are added before either meets k.

    Weights are positive, so nothing cancels. Instead k weighs 1, i and j ``2**-24.5`` each, all
    others nothing: the sum is more than 1 only if i and j met first. It is read from a float32
    result (``1 / l``), else from the log-sum-exp. One triple for each query head.

    Raises:
        NotMeasured: the result has 16 bits and no log-sum-exp resolves ``1 + 2**-23`` from 1.
    """

    def __init__(self, side: Side, *, turn: int = 0) -> None:
        self.side, self.turn, self.n = side, turn, side.keys
        self._calibrate()

    @property
    def launches(self) -> int:
        """Calls of the side so far."""
        return self.side.calls

    def __call__(self, triples: Triples) -> NDArray[np.bool_]:
        """For ``[P, 3]`` whether the first two meet before either meets the third."""
        side = self.side
        once = side.batch * side.heads.kv * side.patterns
        parts = []
        for at in range(0, len(triples), once):
            some = triples[at : at + once]
            b, g, r = places(side.batch, side.heads.kv, side.patterns, turn=self.turn)[
                : len(some)
            ].T
            log2 = self._nothing()
            log2[b, g, r, some[:, 0]] = _SMALL
            log2[b, g, r, some[:, 1]] = _SMALL
            log2[b, g, r, some[:, 2]] = 0.0
            v = side.values()
            v[b, some[:, 2], g, r] = 1.0
            parts.append(self._read(log2, v)[b, g, r].numpy())
        return np.concatenate(parts)

    def _nothing(self) -> Tensor:
        side = self.side
        return torch.full((side.batch, side.heads.kv, side.patterns, self.n), COLD)

    def _read(self, log2: Tensor, v: Tensor) -> Tensor:
        """``[B, Hkv, patterns]``: whether the denominator exceeds 1; V's column r is 1 at k."""
        side = self.side
        answer = side.run(*side.weighted(log2), v)
        if side.out == torch.float32:
            heads = answer.out.view(side.batch, side.heads.kv, side.group, side.heads.dim)
            return heads.diagonal(dim1=-2, dim2=-1)[..., : side.patterns] < 1.0
        if answer.lse is None:
            raise NotMeasured(
                f"{side.which} gives 16-bit results and no log-sum-exp, in which 1 + 2**-23 "
                "cannot be told from 1"
            )
        lse = answer.lse.view(side.batch, side.heads.kv, side.group)
        return lse[..., : side.patterns] > 0.6e-7

    def _calibrate(self) -> None:
        """See that 1 reads as 1 and 1 + 2**-23 as more."""
        for log2_of_other, more in ((COLD, False), (-23.0, True)):
            log2 = self._nothing()
            log2[..., 0], log2[..., 1] = 0.0, log2_of_other
            v = self.side.values()
            v[:, 0] = 1.0
            if bool((self._read(log2, v) != more).any()):
                value = "1 + 2**-23" if more else "1"
                raise NotMeasured(
                    f"{self.side.which}: a denominator of {value} is not read as such"
                )

"""In which order the softmax denominator is added over the keys."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.errors import NotMeasured
from kvparity.relations.order.sides import Asking, Side, places
from kvparity.relations.order.triples import Triples

_SMALL = -24.5  # log2: one is swallowed by 1, two together are not, whatever the rounding of exp


class Denominator(Asking):
    """Whether the weights of i and j are added before either meets k.

    Weights are positive, so nothing cancels. Instead k weighs 1, i and j ``2**-24.5`` each, all
    others nothing: the sum is more than 1 only if i and j met first. It is read from a float32
    result (``1 / l``), else from the log-sum-exp. One triple for each query head.

    A sink is one more term, the last: its value is 0, so the log-sum-exp alone shows it.

    Raises:
        NotMeasured: the result has 16 bits, or there are sinks, and no log-sum-exp resolves
            ``1 + 2**-23`` from 1.
    """

    def __init__(self, side: Side, *, turn: int = 0) -> None:
        self.side, self.turn = side.reaching(side.cold), turn
        self.sinks = side.subject.sinks
        self.n = side.keys + self.sinks
        known, softcap = self.side.known, self.side.subject.softcap
        if softcap not in known.resolved:
            self._calibrate()
            known.resolved.add(softcap)

    def __call__(self, triples: Triples) -> NDArray[np.bool_]:
        """For ``[P, 3]`` whether the first two meet before either meets the third."""
        side = self.side
        where = places(side.batch, side.heads.kv, side.patterns, turn=self.turn)
        if self.sinks:  # each head has one, whatever the sequence
            where = where[where[:, 0] == self.turn % side.batch]
        parts = []
        for at in range(0, len(triples), len(where)):
            some = triples[at : at + len(where)]
            b, g, r = where[: len(some)].T
            log2 = self._nothing()
            log2[b, g, r, some[:, 0]] = _SMALL
            log2[b, g, r, some[:, 1]] = _SMALL
            log2[b, g, r, some[:, 2]] = 0.0
            v = torch.zeros(side.batch, self.n, side.heads.kv, side.heads.dim)
            v[b, some[:, 2], g, r] = 1.0
            parts.append(self._read(log2, v)[b, g, r].numpy())
        return np.concatenate(parts)

    def _nothing(self) -> Tensor:
        side = self.side
        return torch.full((side.batch, side.heads.kv, side.patterns, self.n), side.cold)

    def _read(self, log2: Tensor, v: Tensor) -> Tensor:
        """``[B, Hkv, patterns]``: whether the denominator exceeds 1; V's column r is 1 at k."""
        side = self.side
        sinks = log2[self.turn % side.batch, :, :, -1] if self.sinks else None
        log2, v = log2[..., : side.keys], v[:, : side.keys]
        answer = side.run(*side.weighted(log2), v, sinks)
        if side.out == torch.float32 and not self.sinks:
            heads = answer.out.view(side.batch, side.heads.kv, side.group, side.heads.dim)
            return heads.diagonal(dim1=-2, dim2=-1)[..., : side.patterns] < 1.0
        if answer.lse is None:
            raise NotMeasured(
                f"{side.which} gives no log-sum-exp, and only that shows a sink"
                if self.sinks
                else f"{side.which} gives 16-bit results and no log-sum-exp, in which 1 + 2**-23 "
                "cannot be told from 1"
            )
        lse = answer.lse.view(side.batch, side.heads.kv, side.group)
        return lse[..., : side.patterns] > 0.6e-7

    def _calibrate(self) -> None:
        """See that 1 reads as 1 and 1 + 2**-23 as more, with the sink as either term too."""
        last = self.n - 1
        for one, two in ((0, 1), *(((0, last), (last, 0)) if self.sinks else ())):
            for log2_of_other, more in ((self.side.cold, False), (-23.0, True)):
                log2 = self._nothing()
                log2[..., one], log2[..., two] = 0.0, log2_of_other
                v = torch.zeros(self.side.batch, self.n, self.side.heads.kv, self.side.heads.dim)
                v[:, 0] = 1.0
                if bool((self._read(log2, v) != more).any()):
                    value = "1 + 2**-23" if more else "1"
                    sink = "" if (one, two) == (0, 1) else " with a sink"
                    raise NotMeasured(
                        f"{self.side.which}: a denominator of {value}{sink} is not recovered"
                    )

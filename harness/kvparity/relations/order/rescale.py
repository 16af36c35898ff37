"""Where an online softmax renews its running maximum: the edges between blocks of keys.

A tree cannot show this, yet it decides bits: a weight that is computed against one maximum and then
scaled to another is rounded twice. Three keys a, b, c with rising scores tell: if b's block is
closed before c comes, a weighs fl(fl(2^-(b-a)) * fl(2^-(c-b))), else fl(2^-(c-a)).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.sides import Side, Steps, places
from kvparity.relations.order.stats import Stats

Asked = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Edges:
    """First keys of blocks. ``up``: closed before later keys come (tiles of a loop and splits).
    ``down``: closed before earlier keys come (splits that are merged later, loops from the end). A
    block of one key leaves no trace there: its weight is 1 before it is scaled.
    """

    up: tuple[int, ...]
    down: tuple[int, ...]


class RescaleEdges:
    """Whether key b's block is closed before key c comes. One question for each query head."""

    def __init__(self, side: Side) -> None:
        if side.keys < 3:
            raise NotMeasured("fewer than three keys")
        side = side.reaching(side.cold)
        self.side = side
        self.patterns = min(side.patterns, side.heads.dim // 2)
        self.probes = 0
        known, softcap = side.known.steps, side.subject.softcap
        if softcap not in known:
            known[softcap] = self._steps()
        self.steps = known[softcap]

    def __call__(self, asked: Asked) -> NDArray[np.bool_]:
        """For pairs (b, c) whether b's block is closed before c comes.

        Raises:
            ProbeLied: a value is neither near what one rounding nor what two give.
        """
        side = self.side
        slots = places(side.batch, side.heads.kv, self.patterns)
        closed: list[bool] = []
        for at in range(0, len(asked), len(slots)):
            some = asked[at : at + len(slots)]
            log2, v = self._empty()
            neighbours = []
            for (b, c), (i, g, r) in zip(some, slots, strict=False):
                near = [a for a in (b - 1, b + 1) if a != c and 0 <= a < side.keys]
                log2[i, g, r, near] = -self.steps.a_to_b - self.steps.b_to_c
                log2[i, g, r, b] = -self.steps.b_to_c
                log2[i, g, r, c] = 0.0
                for column, a in enumerate(near):
                    v[i, a, g, 2 * r + column] = 1.0
                neighbours.append(len(near))
            out = side.run(*side.weighted(log2), v).out
            for count, (i, g, r) in zip(neighbours, slots, strict=False):
                seen = out[i, g * side.group + r, 2 * r : 2 * r + count]
                closed.append(self._closed(seen))
        self.probes += len(asked)
        return np.array(closed, dtype=bool)

    def _closed(self, seen: Tensor) -> bool:
        once, twice = self.steps.once, self.steps.twice
        known = (seen == once) | (seen == twice)
        if not bool(known.all()):
            raise ProbeLied(
                f"{self.side.which}, rescaling: a weight of {float(seen[~known][0]):.9g}, where "
                f"{once:.9g} (rounded once) or {twice:.9g} (twice) were expected; "
                "exp may give other bits at other places"
            )
        return bool((seen != once).any())

    def _empty(self) -> tuple[Tensor, Tensor]:
        side = self.side
        log2 = torch.full((side.batch, side.heads.kv, self.patterns, side.keys), side.cold)
        return log2, side.values()

    def _steps(self) -> Steps:
        if self.side.out == torch.float32:
            return self._measured()
        self._see_stored_weights()
        return _computed(self.side.out)

    def _measured(self) -> Steps:
        """Steps so large that l is exactly 1, with weights as this very kernel computes them."""
        for x in range(1, 16):
            a_to_b, b_to_c = 25 + x / 16, 26 + x / 16
            weights = []
            for low, high in (
                (-a_to_b - b_to_c, -b_to_c),
                (-b_to_c, 0.0),
                (-a_to_b - b_to_c, 0.0),
            ):
                log2, v = self._empty()
                log2[..., 0], log2[..., 1] = low, high
                v[:, 0] = 1.0
                weights.append(self.side.run(*self.side.weighted(log2), v).out[0, 0, 0])
            first, second, once = weights
            twice = float(first * second)  # in float32
            if float(once) > 0 and twice != float(once):
                return Steps(a_to_b, b_to_c, float(once), twice)
        raise NotMeasured(
            f"{self.side.which}: no step was found at which two roundings differ from one"
        )

    def _see_stored_weights(self) -> None:
        """A 16-bit result shows a second rounding only of weights that are rounded to 16 bits."""
        a, _ = _STEPS[self.side.out]
        log2, v = self._empty()
        log2[..., 0], log2[..., 1] = -a, 0.0
        v[:, 0] = 1.0
        stored = _round(_round(2.0**-a, self.side.out) / (1 + 2.0**-a), self.side.out)
        q, k = self.side.weighted(log2[:, :, :1])  # of all heads, those too that no pattern has
        if bool((self.side.run(q, k, v).out != stored).any()):
            raise NotMeasured(
                f"{self.side.which} does not round weights to 16 bits before P V (or divides them "
                "first), so rescaling leaves no trace in a 16-bit result"
            )


# log2 of b over a and of c over b at which weights that are stored in 16 bits show the second
# rounding, and an exp that is off by 2^-14 changes nothing.
_STEPS = {torch.bfloat16: (6.875, 7.125), torch.float16: (6.9375, 6.625)}


def _round(x: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(x, dtype=torch.float64).to(dtype))


def _computed(dtype: torch.dtype) -> Steps:
    """What weights that are stored in 16 bits show.

    The weight of an a that is no neighbour of b's in its block was 1 before it was scaled, so it is
    not rounded at all. It reads as rounded once.
    """
    a, b = _STEPS[dtype]
    ways = (_round(2.0 ** -(a + b), dtype), _round(2.0**-a, dtype) * 2.0**-b)
    total = 1 + 2.0**-b  # what a's weigh beside that moves no result
    return Steps(a, b, *(_round(way / total, dtype) for way in ways))


def recover_edges(ask: RescaleEdges) -> tuple[Edges, Stats]:
    """All edges, by halving what is closed; blocks are taken to be stretches of adjacent keys.

    Raises:
        NotATree: the answers fit no such blocks.
    """
    begun, launches, probes = time.perf_counter(), ask.side.calls, ask.probes
    last = ask.side.keys - 1
    found: dict[str, list[int]] = {"up": [], "down": []}
    # Descending, a last key that is a block of its own leaves no trace, so it is asked of none.
    open_: list[tuple[str, int, int]] = [("up", 0, last), ("down", 0, last - 1)]
    closed = ask(_asked(open_))
    rounds = 1
    open_ = [one for one, yes in zip(open_, closed, strict=True) if yes]
    while True:
        halves = []
        for way, low, high in open_:
            if high - low == 1:
                found[way].append(high)
            else:
                middle = (low + high) // 2
                halves += [(way, low, middle), (way, middle, high)]
        if not halves:
            break
        closed = ask(_asked(halves))
        rounds += 1
        for k in range(0, len(halves), 2):
            if not (closed[k] or closed[k + 1]):
                raise NotATree(
                    f"{ask.side.which}, rescaling: a block ends between keys {halves[k][1]} and "
                    f"{halves[k + 1][2]}, but neither before nor after key {halves[k][2]}"
                )
        open_ = [one for one, yes in zip(halves, closed, strict=True) if yes]
    seconds = time.perf_counter() - begun
    stats = Stats(ask.probes - probes, ask.side.calls - launches, rounds, seconds)
    return Edges(tuple(sorted(found["up"])), tuple(sorted(found["down"]))), stats


def certify_edges(ask: RescaleEdges, edges: Edges) -> tuple[str, Stats]:
    """``""`` if every edge closes and no block is closed within, else what was seen instead."""
    begun, launches, probes = time.perf_counter(), ask.side.calls, ask.probes
    asked: list[tuple[str, int, int]] = []
    want: list[bool] = []
    for way, at in (("up", edges.up), ("down", edges.down)):
        for edge in at:
            asked.append((way, edge - 1, edge))
            want.append(True)
        starts = (0, *at, ask.side.keys)
        for start, stop in pairwise(starts):
            # Descending, a block of one key at the end would hide what lies before it.
            end = stop - 1 - (way == "down")
            if end > start:
                asked.append((way, start, end))
                want.append(False)
    got = ask(_asked(asked))
    stats = Stats(ask.probes - probes, ask.side.calls - launches, 1, time.perf_counter() - begun)
    wrong = np.flatnonzero(got != np.array(want))
    if len(wrong) == 0:
        return "", stats
    way, low, high = asked[int(wrong[0])]
    order = "ascending" if way == "up" else "descending"
    seen = "closes a block" if got[wrong[0]] else "closes no block"
    return f"{ask.side.which} {seen} between keys {low} and {high}, {order}", stats


def _asked(ranges: Sequence[tuple[str, int, int]]) -> list[tuple[int, int]]:
    return [(low, high) if way == "up" else (high, low) for way, low, high in ranges]

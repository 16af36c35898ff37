"""A toy of several layers and KV heads that is wrong in exactly one place.

The place is one number of a cache (``Spot``), one position of one layer (``Gap``), or one head of
one layer that looks at other keys than it should (``Look``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from toy import Toy, ToySession
from toy_cache import POSITIONS, VOCAB, WIDTH, ToyCache

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects import events

LAYERS, HEADS = 3, 4


@dataclass(frozen=True)
class Spot:
    """One number of the cache. ``told``: it is computed wrong; else it is kept wrong."""

    part: Literal["k", "v"]
    layer: int
    head: int
    sequence: int
    position: int
    column: int
    told: bool = False


@dataclass(frozen=True)
class Gap:
    """``untold``: nobody is told what is written there. ``lost``: it is not held in the end.

    What is lost is the newest position.
    """

    kind: Literal["untold", "lost"]
    layer: int
    sequence: int
    position: int


@dataclass(frozen=True)
class Look:
    """How one head of one layer looks at the key ``at``, counted from the first one it may see.

    ``deaf``: its key and value do not count. ``weighs``: its key counts, and not its value.
    ``adds``: its value counts, whatever its key.
    """

    layer: int
    head: int
    kind: Literal["deaf", "weighs", "adds"]
    at: int = 0


class GridCache:
    """Float32 keys and values ``[layers, members, capacity, HEADS, WIDTH]``; NaN where unused."""

    def __init__(
        self, members: Sequence[Member], slack: int, spot: Spot | None, gap: Gap | None
    ) -> None:
        capacity = max(m.length for m in members) + slack
        self.kv = torch.full((2, LAYERS, len(members), capacity, HEADS, WIDTH), torch.nan)
        self.spot, self.gap, self.width = spot, gap, 0

    def layers(self) -> int:
        return LAYERS

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        k, v = self.kv[:, layer, sequence, start:stop].clone()
        return k, v

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        self.kv[:, layer, sequence, start : start + len(k)] = torch.stack([k, v])
        spot = self.spot
        if spot is not None and not spot.told:
            spoil(spot, layer, sequence, start, k, v, self.kv[:, layer, sequence, start:])

    def live(self, layer: int, sequence: int) -> range:
        filled = int((~torch.isnan(self.kv[0, layer, sequence, :, 0, 0])).sum())
        gap = self.gap
        lost = gap is not None and gap.kind == "lost"
        return range(filled - (lost and (gap.layer, gap.sequence) == (layer, sequence)))

    def window(self, layer: int) -> int | None:
        return self.width or None

    def owner(self, model_layer: int) -> int:
        return model_layer

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def truncate(self, sequence: int, length: int) -> None:
        self.kv[:, :, sequence, length:] = torch.nan


def spoil(
    spot: Spot, layer: int, sequence: int, start: int, k: Tensor, v: Tensor, into: Sequence[Tensor]
) -> None:
    """The next number in place of the one at ``spot``, if it is among these."""
    if (layer, sequence) == (spot.layer, spot.sequence) and 0 <= spot.position - start < len(k):
        number = into["kv".index(spot.part)][spot.position - start, spot.head]
        number[spot.column] = torch.nextafter(number[spot.column], torch.tensor(torch.inf))


class GridSession(ToySession):
    _cache: GridCache  # type: ignore[assignment] # of another shape
    subject: Grid

    def _open(self, members: Sequence[Member], slack: int) -> ToyCache:
        cache = GridCache(members, slack, self.subject.spot, self.subject.gap)
        cache.width = self.subject.window or 0
        return cache  # type: ignore[return-value] # of another shape

    def _span(self, span: Span, ids: Sequence[int], alone: bool) -> Tensor:
        toy, listener = self.subject, events.current()
        positions = torch.arange(span.start, span.stop)
        queries = []
        for layer in range(LAYERS):
            q, k, v = toy.layer(layer, torch.tensor(ids), positions)
            if toy.spot is not None and toy.spot.told:
                spoil(toy.spot, layer, span.sequence, span.start, k, v, (k, v))
            self._cache.write(layer, span.sequence, span.start, k, v)
            silent = int(toy.gap == Gap("untold", layer, span.sequence, span.start))
            if listener is not None and silent < len(k):
                start, fresh = span.start + silent, (k[silent:], v[silent:])
                listener.wrote(events.Wrote(layer, span.sequence, start, *fresh))
            queries.append(q)
        self._counts["attention.decode" if span.decode else "attention.prefill"] += 1
        rows = [
            sum(
                toy.part(layer, head, q[position - span.start, head], span.sequence, position, self)
                for layer, q in enumerate(queries)
                for head in range(HEADS)
            )
            for position in span.rows
        ]
        return torch.stack(rows).float() if rows else torch.empty(0, VOCAB)  # type: ignore[arg-type] # never 0


class Grid(Toy):
    """Float32 logits: what all heads of all layers mix, added up in float64."""

    def __init__(
        self,
        spot: Spot | None = None,
        look: Look | None = None,
        gap: Gap | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__(window=window)
        self.spot, self.look, self.gap = spot, look, gap
        random = torch.Generator().manual_seed(1)
        shape = (3, LAYERS, VOCAB + POSITIONS, HEADS, WIDTH)
        self.table = torch.randint(-900, 901, shape, generator=random).float()

    def layer(self, layer: int, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[n, HEADS, WIDTH]`` of one layer."""
        q, k, v = (self.table[:, layer, ids] + self.table[:, layer, VOCAB + positions]).unbind(0)
        return q, k, v

    def part(
        self, layer: int, head: int, q: Tensor, sequence: int, position: int, session: GridSession
    ) -> Tensor:
        """Float64 ``[VOCAB]``: what one head adds to a row."""
        first = 0 if self.window is None else max(0, position + 1 - self.window)
        look = self.look
        hidden = 1 if look is not None and look.at < 0 and first else 0
        k, v = session._cache.read(layer, sequence, first - hidden, position + 1)
        k, v = k[:, head].double(), v[:, head].double()
        weights = 1 + torch.remainder(k @ q.double(), 5)
        shares, values = weights.clone(), weights.clone()
        if hidden:
            shares[0] = values[0] = 0
        at = hidden + (look.at if look is not None else 0)
        if look is not None and (look.layer, look.head) == (layer, head) and at < len(k):
            if look.kind == "deaf":
                shares[at] = values[at] = 0
            elif look.kind == "weighs":
                shares[at], values[at] = weights[at], 0
            else:
                values[at] = 1
        return self.head @ torch.floor((values @ v) * 64 / shares.sum())

    def session(self, members: Sequence[Member], layout: Layout) -> GridSession:
        return GridSession(self, members, layout)

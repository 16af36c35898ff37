"""What a cache holds after a run, by digests of every stored position, without keeping copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Action, Plan
from kvparity.record.execute import Record, at_work
from kvparity.record.run_events import Watch, watching
from kvparity.subjects import events
from kvparity.subjects.base import LayeredCache, Session
from kvparity_kernels.digest import row_digest
from kvparity_kernels.stream import listening

POSITIONS = 1024
"""Positions that are read at a time, so that no copy of a long cache is made."""


@dataclass(frozen=True)
class CachePlace:
    """One stored key and value: of one layer, at one position of one sequence."""

    layer: int
    sequence: int
    position: int


@dataclass(frozen=True)
class CacheSnapshot:
    """What a cache holds after a run. Row ``starts[s] + p`` is position p of sequence s.

    ``held`` int64 ``[layers, positions, 2]``: digests of keys and of values as they are read;
    ``written`` the same of what was written last, after the declared round trip. ``is_held``,
    ``is_written`` bool ``[layers, positions]``. ``needed``: positions that the next query's window
    would show. ``values``: the places that were kept whole, as read and as written.
    """

    record: Record
    starts: tuple[int, ...]
    held: Tensor
    written: Tensor
    is_held: Tensor
    is_written: Tensor
    needed: Tensor
    values: dict[CachePlace, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]

    @property
    def index(self) -> tuple[tuple[int, int], ...]:
        """(sequence, position) of every row."""
        members = self.record.plan.members
        return tuple((s, p) for s, each in enumerate(members) for p in range(each.length))

    def tensors(self) -> dict[str, Tensor]:
        """What is kept as evidence."""
        kept = ("held", "written", "is_held", "is_written")
        return {name: getattr(self, name) for name in kept}


@dataclass
class SnapshotTaker(Watch):
    """Listens to what is written while a plan runs, and reads the cache when it has ended.

    ``keep``: places whose values are held whole.
    """

    plan: Plan
    keep: frozenset[CachePlace] = frozenset()
    cache: LayeredCache | None = None
    written: Tensor = field(default_factory=lambda: torch.empty(0))
    is_written: Tensor = field(default_factory=lambda: torch.empty(0))
    held: Tensor = field(default_factory=lambda: torch.empty(0))
    is_held: Tensor = field(default_factory=lambda: torch.empty(0))
    needed: Tensor = field(default_factory=lambda: torch.empty(0))
    fresh: dict[CachePlace, tuple[Tensor, Tensor]] = field(default_factory=dict)
    read: dict[CachePlace, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = [member.length for member in self.plan.members]
        self.starts = tuple(sum(lengths[:i]) for i in range(len(lengths)))
        self.positions = sum(lengths)
        adopted = [each for each in self.plan.actions if each.kind == "adopt"]
        self.keep |= {
            replace(place, sequence=each.donor)
            for each in adopted
            for place in self.keep
            if place.sequence == each.sequence and place.position < each.tokens
        }

    def opened(self, session: Session) -> None:
        """Take the session's cache; raises ``UnsupportedError`` where it cannot be looked at."""
        cache = session.cache()
        if not isinstance(cache, LayeredCache):
            raise UnsupportedError("the cache of this subject cannot be inspected layer by layer")
        self.cache = cache
        shape = (cache.layers(), self.positions)
        self.written = torch.zeros(*shape, 2, dtype=torch.int64)
        self.held = torch.zeros_like(self.written)
        self.is_written = torch.zeros(shape, dtype=torch.bool)
        self.is_held, self.needed = torch.zeros_like(self.is_written), self.is_written.clone()

    def acted(self, action: Action) -> None:
        """Forget what was written before a reset; a donor's tokens count as the taker's."""
        if action.kind == "reset":
            self.is_written[:] = False
            return
        to, of = self.starts[action.sequence], self.starts[action.donor]
        for table in (self.written, self.is_written):
            table[:, to : to + action.tokens] = table[:, of : of + action.tokens].clone()
        for place, pair in list(self.fresh.items()):
            if place.sequence == action.donor and place.position < action.tokens:
                self.fresh[replace(place, sequence=action.sequence)] = pair

    def wrote(self, event: events.Wrote) -> None:
        """Digest what a reader should get of fresh keys and values."""
        if self.cache is None:
            return
        k, v = self.cache.round_trip(event.layer, event.k, event.v)
        first = self.starts[event.sequence] + event.start
        self.written[event.layer, first : first + len(k)] = _digests(k, v)
        self.is_written[event.layer, first : first + len(k)] = True
        for place in self._wanted(event.layer, event.sequence, event.start, len(k)):
            at = place.position - event.start
            self.fresh[place] = (k[at].cpu().clone(), v[at].cpu().clone())

    def ended(self, session: Session) -> None:
        """Read all that the cache holds."""
        if self.cache is None:
            return
        filled = _filled(self.plan)
        for layer in range(self.cache.layers()):
            for sequence, length in enumerate(filled):
                self._read(self.cache, layer, sequence, length)

    def _read(self, cache: LayeredCache, layer: int, sequence: int, length: int) -> None:
        base = self.starts[sequence]
        with at_work():
            live, window = cache.live(layer, sequence), cache.window(layer)
        live = range(live.start, min(live.stop, self.plan.members[sequence].length))
        oldest = 0 if window is None else max(0, length - window + 1)
        self.needed[layer, base + oldest : base + length] = True
        for start in range(live.start, live.stop, POSITIONS):
            stop = min(start + POSITIONS, live.stop)
            with at_work():
                k, v = cache.read(layer, sequence, start, stop)
            self.held[layer, base + start : base + stop] = _digests(k, v)
            self.is_held[layer, base + start : base + stop] = True
            for place in self._wanted(layer, sequence, start, stop - start):
                at = place.position - start
                self.read[place] = (k[at].cpu().clone(), v[at].cpu().clone())

    def _wanted(self, layer: int, sequence: int, start: int, count: int) -> Iterable[CachePlace]:
        inside = range(start, start + count)
        return [
            each
            for each in self.keep
            if (each.layer, each.sequence) == (layer, sequence) and each.position in inside
        ]

    def result(self, record: Record) -> CacheSnapshot:
        """What was found, once the run has ended."""
        values = {
            each: (self.read[each], self.fresh.get(each, self.read[each]))
            for each in self.keep
            if each in self.read
        }
        return CacheSnapshot(
            record=record,
            starts=self.starts,
            held=self.held,
            written=self.written,
            is_held=self.is_held,
            is_written=self.is_written,
            needed=self.needed,
            values=values,
        )


def take_snapshot(
    plan: Plan, run: Callable[[], Record], keep: frozenset[CachePlace] = frozenset()
) -> CacheSnapshot:
    """Run a plan by ``run`` and keep what its cache holds at the end.

    Raises:
        UnsupportedError: the cache cannot be looked at.
    """
    holding = SnapshotTaker(plan, keep)
    with listening(events.Wrote, holding.wrote), watching(holding):
        record = run()
    return holding.result(record)


def _digests(k: Tensor, v: Tensor) -> Tensor:
    """int64 ``[n, 2]``. On the CPU, so that no launch of ours is taken for the subject's."""
    return torch.stack([row_digest(x.detach().cpu().reshape(len(x), -1)) for x in (k, v)], dim=1)


def _filled(plan: Plan) -> list[int]:
    """How far each member is computed when the plan has run."""
    filled = [0] * len(plan.members)
    for step in plan.schedule[plan.warm_up :]:
        for span in step:
            filled[span.sequence] = span.stop
    return filled

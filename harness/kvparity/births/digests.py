"""One pass over a path: a digest of each row of each operation. Nothing else is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import Tensor

from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.record.run_events import Acted
from kvparity.subjects.events import Computed
from kvparity_kernels.digest import row_digest
from kvparity_kernels.stream import listening

Place = tuple[str, int]
"""A sequence's id, and a position."""


WAITING = 1 << 21
"""Elements that may wait for their digests: many small rows at once take a fraction of the time."""


@dataclass(frozen=True)
class _Heard:
    """Rows ``[n, width]`` of an operation, as they were when it gave them."""

    operation: str
    read: bool
    places: list[Place]
    rows: Tensor


@dataclass
class Digests:
    """By operation, in the order of computation, and place. A row that is computed again has its
    last digest, one that is read again (a cached key) its first: later reads that are unlike it are
    in ``moved``, unless all that was read is there, in another order."""

    by_operation: dict[str, dict[Place, int]] = field(default_factory=dict)
    moved: dict[str, set[Place]] = field(default_factory=dict)
    _waiting: list[_Heard] = field(default_factory=list)
    _size: int = 0

    def hear(self, event: Computed) -> None:
        """Take the rows of one operation; :meth:`settle` comes when all are taken."""
        places, rows = owned(event)
        kept = rows.reshape(len(rows), -1).clone()  # what is made of it may be made in its place
        self._waiting.append(_Heard(event.operation, event.read, places, kept))
        self._size += kept.numel()
        if self._size > WAITING:
            self.settle()

    def settle(self) -> None:
        """Digest what waits."""
        alike: dict[tuple[torch.dtype, int], list[int]] = {}
        for number, each in enumerate(self._waiting):
            alike.setdefault((each.rows.dtype, each.rows.shape[1]), []).append(number)
        found: dict[int, list[int]] = {}
        for numbers in alike.values():
            parts = [self._waiting[n].rows for n in numbers]
            digests = iter(digested(torch.cat(parts)))
            found |= {
                n: [*islice(digests, len(part))] for n, part in zip(numbers, parts, strict=True)
            }
        for number, each in enumerate(self._waiting):
            self._take(each, found[number])
        self._waiting.clear()
        self._size = 0

    def _take(self, heard: _Heard, digests: list[int]) -> None:
        own, places = self.by_operation.setdefault(heard.operation, {}), heard.places
        if not heard.read:
            own.update(zip(places, digests, strict=True))
            return
        other = [each for each in zip(places, digests, strict=True) if own.get(each[0]) != each[1]]
        if not any(place in own for place, _ in other):  # nearly always: a step adds a key
            own.update(other)
            return
        for at in by_sequence(places):
            here = [places[n] for n in at]
            found = in_order(own, here, [digests[n] for n in at])
            for place, digest in zip(here, found, strict=True):
                if own.setdefault(place, digest) != digest:
                    self.moved.setdefault(heard.operation, set()).add(place)

    def unlike(self, other: Digests) -> Iterator[tuple[str, Place]]:
        """Operations and places that both have, with other bits, in the order of this one."""
        for operation, own in self.by_operation.items():
            theirs = other.by_operation.get(operation, {})
            for place in sorted(own.keys() & theirs.keys()):
                if own[place] != theirs[place]:
                    yield operation, place

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return sum(map(len, self.by_operation.values()))


@contextmanager
def computing(run: PathRun, hear: Callable[[Computed], None]) -> Iterator[None]:
    """Call ``hear`` with what a path computes of the tokens that are compared.

    Before a reset it computes other tokens. A prefix is computed by its donor: its rows are those
    of the sequence that takes them over.
    """
    resets = sum(each.kind == "reset" for each in run.plan.actions)
    donors = {each.id: each for each in run.plan.members if each.like}

    def own(place: Place | None) -> Place | None:
        donor = donors.get(place[0]) if place else None
        return (donor.like, place[1]) if place and donor and place[1] < donor.shared else place

    def acted(event: Acted) -> None:
        nonlocal resets
        resets -= event.action.kind == "reset"

    def heard(event: Computed) -> None:
        if not resets:
            theirs = [[*map(own, row)] for row in event.places] if donors else event.places
            hear(replace(event, places=theirs) if donors else event)

    with listening(Acted, acted), listening(Computed, heard):
        yield


def digest_pass(run: PathRun) -> tuple[Record, Digests]:
    """Run a path and keep the digests of what its operations gave."""
    found = Digests()
    with computing(run, found.hear):
        record = run.run()
    found.settle()
    return record, found


def by_sequence(places: Sequence[Place]) -> list[list[int]]:
    """The numbers of the places of each sequence."""
    found: dict[str, list[int]] = {}
    for number, (name, _) in enumerate(places):
        found.setdefault(name, []).append(number)
    return list(found.values())


def in_order(known: Mapping[Place, int], places: list[Place], read: list[int]) -> list[int]:
    """What was read at the places: in the known order, if all that is known was read in another."""
    there = [known[place] for place in places if place in known]
    if all(known.get(place, digest) == digest for place, digest in zip(places, read, strict=True)):
        return read
    fresh = Counter(read) - Counter(there)
    if fresh.total() != len(read) - len(there):
        return read  # something known was not read
    left = iter(fresh.elements())
    return [known[place] if place in known else next(left) for place in places]


def owned(event: Computed) -> tuple[list[Place], Tensor]:
    """The places that are no padding, and their rows ``[n, ...]``."""
    whole = [place for row in event.places for place in row]
    if None not in whole:
        return [place for place in whole if place is not None], event.rows.flatten(0, 1)
    at = [(b, t) for b, row in enumerate(event.places) for t, p in enumerate(row) if p is not None]
    places = [place for place in whole if place is not None]
    if not at:
        return [], event.rows.new_empty(0, 1)
    b, t = torch.tensor(at, device=event.rows.device).unbind(1)
    return places, event.rows[b, t]


def digested(rows: Tensor) -> list[int]:
    """A digest of each row ``[n, ...]``."""
    found: list[int] = row_digest(rows.reshape(len(rows), -1).contiguous()).tolist()
    return found

"""One pass over a path: a digest of each row of each operation. Nothing else is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

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


@dataclass
class Digests:
    """By operation, in the order of computation, and place. A row that is computed again has its
    last digest, one that is read again (a cached key) its first: later reads that are unlike it are
    in ``moved``, unless all that was read is there, in another order."""

    by_operation: dict[str, dict[Place, int]] = field(default_factory=dict)
    moved: dict[str, set[Place]] = field(default_factory=dict)

    def hear(self, event: Computed) -> None:
        """Take the rows of one operation."""
        own = self.by_operation.setdefault(event.operation, {})
        places, rows = owned(event)
        digests = digested(rows)
        if not event.read:
            own.update(zip(places, digests, strict=True))
            return
        for at in by_sequence(places):
            here = [places[n] for n in at]
            found = in_order(own, here, [digests[n] for n in at])
            for place, digest in zip(here, found, strict=True):
                if own.setdefault(place, digest) != digest:
                    self.moved.setdefault(event.operation, set()).add(place)

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
            hear(replace(event, places=[[*map(own, row)] for row in event.places]))

    with listening(Acted, acted), listening(Computed, heard):
        yield


def digest_pass(run: PathRun) -> tuple[Record, Digests]:
    """Run a path and keep the digests of what its operations gave."""
    found = Digests()
    with computing(run, found.hear):
        record = run.run()
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

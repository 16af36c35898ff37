"""The same path with rows of the other one put in: which operations part by themselves."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvparity.births.digests import Place, by_sequence, computing, digested, owned
from kvparity.births.operators import Executed, hearing
from kvparity.core.bits import differing, ulps
from kvparity.record.execute import Record
from kvparity.record.path_run import PathRun
from kvparity.subjects.events import Computed

Key = tuple[str, Place]
"""An operation and a row of it."""


@dataclass(frozen=True)
class Birth:
    """An operation that gave a row other bits although all that it was given was equal.

    ``elements``: how many of ``of`` differ, by up to ``ulps``; ``column``: the first. ``reference``
    and ``candidate``: its value on both sides. ``ran``: what torch executed for it, on both sides.
    ``read``: it was read from the cache; ``same``: it is what the reference read, in another format
    or at another scale.
    """

    operation: str
    sequence: str
    position: int
    elements: int
    of: int
    ulps: int
    column: int
    reference: float
    candidate: float
    ran: tuple[Executed, Executed]
    read: bool
    same: bool


NEAR = 0.125
"""The share of a row that may be left when it is taken for another at some scale: three bits of
fraction are what the narrowest formats of a cache keep."""


@dataclass
class KeptRows:
    """Rows of one path, as far as they fit into ``room`` bytes; ``left_out`` did not."""

    wanted: Collection[Place]
    room: int
    rows: dict[Key, Tensor] = field(default_factory=dict)
    ran: dict[str, Executed] = field(default_factory=dict)
    left_out: int = 0

    def hear(self, event: Computed, ran: Executed) -> None:
        """Keep the rows of the wanted places."""
        for place, row in _rows(event):
            key = event.operation, place
            if place not in self.wanted or (event.read and key in self.rows):
                continue
            self.ran[event.operation] = ran
            size = row.numel() * row.element_size()
            if size > self.room and key not in self.rows:
                self.left_out += 1
                continue
            self.room -= size if key not in self.rows else 0
            self.rows[key] = row.clone()


def capture(run: PathRun, wanted: Collection[Place], room: int) -> KeptRows:
    """Run a path and keep its rows at the wanted places."""
    found = KeptRows(wanted, room)
    with hearing(run, found.hear):
        run.run()
    return found


@dataclass(frozen=True)
class Born:
    """``births`` in the order of computation; ``walked``: operations that read known rows in
    another order; ``whole``: the time did not end before the path did."""

    births: tuple[Birth, ...]
    walked: tuple[str, ...]
    whole: bool


def births(
    run: PathRun,
    reference: KeptRows,
    read: Mapping[str, Mapping[Place, int]],
    until: float = math.inf,
) -> Born:
    """Run a path in which every operation is given the reference's rows, and see which part.

    Each row that is unlike the reference's is counted as born there and then replaced by it, so
    what comes after is given equal inputs again. ``read``: digests of the reference's rows by
    operation. A sequence of which the same rows are read in another order has no births there; the
    operations that read so are named beside the births. ``until``: by the monotonic clock.
    """
    found: dict[Key, Birth] = {}
    walked: dict[str, None] = {}
    whole = True

    def hear(event: Computed, ran: Executed) -> None:
        nonlocal whole
        whole = whole and time.monotonic() <= until
        if not whole:  # the path runs to its end: an error of ours would be one of the subject
            return
        turned = _turned(event, read.get(event.operation, {})) if event.read else ()
        walked.update(dict.fromkeys([event.operation] if turned else []))
        for place, row in _rows(event):
            wanted = reference.rows.get((event.operation, place))
            if wanted is None or wanted.shape != row.shape or place[0] in turned:
                continue
            off = differing(wanted, row)
            if bool(off.any()):
                key = event.operation, place
                sides = reference.ran.get(event.operation, ()), ran
                found.setdefault(key, _birth(event, place, wanted, row, off, sides))
                row.copy_(wanted)

    with hearing(run, hear):
        run.run()
    return Born(tuple(found.values()), tuple(walked), whole)


def _turned(event: Computed, known: Mapping[Place, int]) -> Collection[str]:
    """The sequences of which all known rows are read, in another order."""
    places, rows = owned(event)
    digests, found = digested(rows), set()
    for at in by_sequence(places):
        ours, theirs = [digests[n] for n in at], [known.get(places[n]) for n in at]
        if ours != theirs and Counter(ours) == Counter(theirs):
            found.add(places[at[0]][0])
    return found


def replaced(run: PathRun, rows: Mapping[Key, Tensor]) -> Record:
    """Run a path in which these rows, and no others, are the reference's."""

    def hear(event: Computed) -> None:
        for place, row in _rows(event):
            wanted = rows.get((event.operation, place))
            if wanted is not None:
                row.copy_(wanted)

    with computing(run, hear):
        return run.run()


def _rows(event: Computed) -> Iterator[tuple[Place, Tensor]]:
    """Each row that is no padding, as a view."""
    for b, places in enumerate(event.places):
        for t, place in enumerate(places):
            if place is not None:
                yield place, event.rows[b, t]


def _birth(
    event: Computed,
    place: Place,
    reference: Tensor,
    candidate: Tensor,
    off: Tensor,
    ran: tuple[Executed, Executed],
) -> Birth:
    column = int(torch.nonzero(off.reshape(-1))[0])
    return Birth(
        operation=event.operation,
        sequence=place[0],
        position=place[1],
        elements=int(off.sum()),
        of=off.numel(),
        ulps=int(ulps(reference, candidate).max()),
        column=column,
        reference=float(reference.reshape(-1)[column]),
        candidate=float(candidate.reshape(-1)[column]),
        ran=ran,
        read=event.read,
        same=event.read and scaled(reference.double().flatten(), candidate.double().flatten()),
    )


def scaled(a: Tensor, b: Tensor) -> bool:
    """Whether ``b`` is ``a`` times a number, as nearly as a narrow format rounds."""
    factor = float(a @ b) / max(float(a @ a), 1e-300)
    return bool((b - factor * a).norm() <= NEAR * b.norm())

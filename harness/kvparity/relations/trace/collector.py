"""The listener: turns what a subject tells while it computes into lines of a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kvparity.plan.schedule import Action, Plan, Step
from kvparity.record.run_events import Watch
from kvparity.relations.trace.contents import Contents
from kvparity.relations.trace.facts import Facts
from kvparity.relations.trace.lines import Line, Seen
from kvparity.relations.trace.weights import weigh
from kvparity.subjects.base import Session
from kvparity.subjects.events import Attended, Wrote


@dataclass(frozen=True)
class _Expected:
    step: int
    life: int
    place: int


class Collector(Watch):
    """Listens to one run of ``plan`` (``kvparity.subjects.events.Listener``) and watches its steps.

    The first ``compared`` members are traced, the others are neighbours. Of each span the wanted
    rows are looked at, and its last row. Rows are matched with what the schedule expects by their
    order, never by what the subject says their position is.
    ``order``: (split, tile) of the kernels, where known.
    """

    def __init__(
        self, plan: Plan, compared: int, facts: Facts, order: tuple[int, int] | None = None
    ) -> None:
        self.plan, self.compared, self.order = plan, compared, order
        self.facts = facts
        self.contents = Contents()
        self.life = 0
        self._expected: dict[int, list[_Expected]] = {i: [] for i in range(compared)}
        self._told: Counter[tuple[int, int]] = Counter()
        self._lines: dict[tuple[int, int], Line] = {}
        # What strangers write is nobody's to read.
        self._read = {*range(compared), *(a.donor for a in plan.actions if a.kind == "adopt")}
        self.surplus = 0
        self._number, self._opened = 0, False

    # told by the harness (kvparity.record.run_events.Watch)

    def acted(self, action: Action) -> None:
        """The session was reset, or a sequence took over another's cache."""
        if action.kind == "reset":
            self.life += 1
            self.contents = Contents()
        else:
            self.contents.adopt(action.sequence, action.donor, action.tokens)

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        """One step is computed."""
        self._open()  # even if nobody reported it
        self._number, self._opened = self._number + 1, False

    def ended(self, session: Session) -> None:
        """All steps are computed."""

    def _open(self) -> None:
        """Expect the rows of the present step, now that its actions are done."""
        if self._opened:
            return
        self._opened = True
        for span in self.plan.schedule[self._number]:
            if span.sequence < self.compared:
                rows = sorted({*span.rows, span.stop - 1})
                expected = [_Expected(self._number, self.life, row) for row in rows]
                self._expected[span.sequence] += expected

    # told by the subject

    def wrote(self, event: Wrote) -> None:
        """Keep what was written, for those who read it."""
        if event.sequence in self._read:
            self.contents.write(event.layer, event.sequence, event.start, event.k, event.v)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        """The rows of a span that are looked at, counted from its end.

        What positions the subject gives them is its own claim.
        """
        self._open()
        if sequence >= self.compared:
            return ()
        places = [e.place for e in self._expected[sequence] if e.step == self._number]
        ends = [places[-1] + 1 - place for place in places]
        return tuple(positions[-end] for end in ends if end <= len(positions))

    def attended(self, event: Attended) -> None:
        """Weigh one row of one layer, and find out whose keys it was given."""
        self._open()
        if event.sequence >= self.compared:
            return
        number = self._told[event.layer, event.sequence]
        self._told[event.layer, event.sequence] += 1
        expected = self._expected[event.sequence]
        if number >= len(expected):
            self.surplus += 1
            return
        row = expected[number]
        line = self._lines.get((event.sequence, number))
        if line is None:
            line = Line(
                step=row.step,
                sequence=event.sequence,
                name=self.plan.members[event.sequence].id,
                life=row.life,
                place=row.place,
                position=event.position,
                told=event.told,
            )
        with torch.inference_mode():
            seen = self._seen(event)
        self._lines[event.sequence, number] = replace(line, layers=(*line.layers, seen))

    def _seen(self, event: Attended) -> Seen:
        matching = self.contents.matching(
            event.sequence, event.first, event.k, event.v, event.q.dtype, self.facts
        )
        keys = len(event.k)
        donors = tuple(layer for layer, same in matching.items() if keys and bool(same.all()))
        own = matching.get(self.facts.owner(event.layer))
        strange = torch.ones(keys, dtype=torch.bool) if own is None else ~own
        at = torch.nonzero(strange).flatten()
        return Seen(
            layer=event.layer,
            length=event.length,
            keys=keys,
            first=event.first,
            donors=donors,
            strange=len(at),
            strange_at=event.first + int(at[0]) if len(at) else None,
            weights=weigh(event, self.order),
            decode=event.decode,
        )

    # asked at the end

    def lines(self) -> tuple[Line, ...]:
        """All lines, in the order of the steps."""
        found = [
            replace(line, layers=tuple(sorted(line.layers, key=lambda seen: seen.layer)))
            for line in self._lines.values()
        ]
        return tuple(sorted(found, key=lambda line: (line.step, line.sequence, line.place)))

    def missing(self) -> str | None:
        """The first row that nobody reported, or the rows that nobody asked for, in a sentence."""
        layers = 1 + max((layer for layer, _ in self._told), default=-1)
        if not layers:
            return "the subject reported no row: it does not say what its layers attend to"
        for sequence, expected in self._expected.items():
            for layer in range(layers):
                told = self._told[layer, sequence]
                if told < len(expected):
                    row = expected[told]
                    name = self.plan.members[sequence].id
                    return (
                        f"layer {layer} reported no row at position {row.place} of {name} "
                        f"(step {row.step})"
                    )
        if self.surplus:
            return f"the subject reported {self.surplus} rows more than the schedule has"
        return None

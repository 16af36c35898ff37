"""In the cache: the cell that is read with other bits than it was written with, and the step that
wrote it.

What a kernel reads is what it was really given, by table and slot, so a wrong page shows as a wrong
content. Of a key that was stored at a wrong position, the step is named that stored it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from kvparity.births.account import Account
from kvparity.births.causes import cause, first_birth
from kvparity.births.document import LocatedCell, WritingStep
from kvparity.births.pairs import PairAccount
from kvparity.births.transplant import scaled
from kvparity.core.bits import differing
from kvparity.plan.schedule import Action, Plan, Step
from kvparity.record.path_run import PathRun
from kvparity.record.run_events import Watch, watching
from kvparity.relations.trace.contents import Contents
from kvparity.relations.trace.facts import Facts
from kvparity.relations.trace.tracing import declared
from kvparity.subjects import events
from kvparity.subjects.base import Addressed, Session
from kvparity.subjects.events import Attended, Wrote

_LAYER = re.compile(r"layers\.(\d+)\b")
_KEYS = re.compile(r"layers\.(\d+)\S* (key|keys|keys read)$")


CellPart = Literal["key", "value", "key and value"]


_Key = tuple[int, int, int]
"""A stored layer, a sequence and a position."""


@dataclass(frozen=True)
class _Writing:
    step: WritingStep
    k: Tensor
    v: Tensor


@dataclass
class _CellWatch(Watch):
    """Looks at what one sequence reads of its cache: of one layer, or of all (None).

    ``stored``: the position of which to tell who wrote it, in place of what is read otherwise.
    """

    plan: Plan
    facts: Facts
    path: str
    sequence: int
    row: int
    layer: int | None
    stored: int | None = None
    found: LocatedCell | None = None
    contents: Contents = field(default_factory=Contents)
    before: Contents = field(default_factory=Contents)
    step: int = 0
    session: Session | None = None
    written: dict[_Key, _Writing] = field(default_factory=dict)

    def opened(self, session: Session) -> None:
        self.session = session

    def acted(self, action: Action) -> None:
        if action.kind == "reset":
            self.contents, self.before, self.found = Contents(), self.contents, None
            self.written.clear()
            return
        self.contents.adopt(action.sequence, action.donor, action.tokens)
        for (layer, sequence, position), own in list(self.written.items()):
            if sequence == action.donor and position < action.tokens:
                self.written[layer, action.sequence, position] = own

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        self.step += 1

    def wrote(self, event: Wrote) -> None:
        self.contents.write(event.layer, event.sequence, event.start, event.k, event.v)
        if event.sequence not in self.readable:
            return
        last = event.start + len(event.k) - 1
        step = WritingStep(
            step=self.step,
            sequence=self.plan.members[event.sequence].id,
            first=event.start,
            last=last,
        )
        for i, position in enumerate(range(event.start, last + 1)):
            own = _Writing(step, event.k[i].clone(), event.v[i].clone())
            self.written[event.layer, event.sequence, position] = own

    @property
    def readable(self) -> set[int]:
        """The sequence, and who it takes a prefix over from."""
        adopted = {a.donor for a in self.plan.actions if a.sequence == self.sequence}
        return {self.sequence, *adopted}

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        if sequence != self.sequence or self.found is not None:
            return ()
        return sorted({positions[-1], *({self.row} & set(positions))})

    def attended(self, event: Attended) -> None:
        if event.sequence != self.sequence or self.found is not None:
            return
        if self.layer is not None and event.layer != self.layer:
            return
        layer = self.facts.owner(event.layer)
        if self.stored is not None:
            if (layer, self.sequence, self.stored) in self.written:
                holds = "a key that is rotated by other angles"
                self.found = self._cell(event.layer, self.stored, None, "key", holds)
            return
        same = self.contents.matching(
            event.sequence, event.first, event.k, event.v, event.q.dtype, self.facts
        ).get(layer)
        unlike = [] if same is None else torch.nonzero(~same).flatten().tolist()
        if unlike:
            at = unlike[0]
            position = event.first + at
            part, holds = self._held(event, layer, position, event.k[at], event.v[at])
            self.found = self._cell(event.layer, position, event.position, part, holds)

    def _cell(
        self, layer: int, position: int, row: int | None, part: CellPart, holds: str
    ) -> LocatedCell:
        stored = self.facts.owner(layer)
        cache = None if self.session is None else self.session.cache()
        slot, page = None, 0
        if isinstance(cache, Addressed):
            slot, page = cache.address(stored, self.sequence, position)
        own = self.written.get((stored, self.sequence, position))
        return LocatedCell(
            path=self.path,
            layer=layer,
            sequence=self.plan.members[self.sequence].id,
            position=position,
            slot=slot,
            page_slots=page or None,
            part=part,
            written=None if own is None else own.step,
            read_step=None if row is None else self.step,
            read_by=row,
            holds=holds,
        )

    def _held(
        self, event: Attended, layer: int, position: int, k: Tensor, v: Tensor
    ) -> tuple[CellPart, str]:
        """Which part is otherwise, and what is there."""
        own = self.written.get((layer, self.sequence, position))
        if own is None:
            return "key and value", "what nobody wrote for this sequence"
        a, b = self.facts.round_trip(layer, own.k[None], own.v[None])
        wanted, read = (a[0].to(k), b[0].to(v)), (k, v)
        off = [bool(differing(x, y).any()) for x, y in zip(wanted, read, strict=True)]
        part: CellPart = "key and value" if all(off) else "key" if off[0] else "value"
        if any(bool(x.isnan().any()) for x in read):
            return part, "NaN, as memory that nobody wrote"
        for contents, when in ((self.contents, ""), (self.before, " before the reset")):
            origin = contents.origin(layer, k, v, event.q.dtype, self.facts)
            if origin is not None:
                same = origin[0] == self.sequence
                whose = "the same sequence" if same else f"sequence {self._name(origin[0])}"
                return part, f"what was written for position {origin[1]} of {whose}{when}"
        if all(
            scaled(x.double().flatten(), y.double().flatten())
            for x, y in zip(wanted, read, strict=True)
        ):
            return part, "what was written, in another format or at another scale"
        return part, "other bits than were written"

    def _name(self, sequence: int) -> str:
        return self.plan.members[sequence].id


def cell(
    found: Account | PairAccount, sides: tuple[PathRun, PathRun], names: tuple[str, str]
) -> LocatedCell | None:
    """The cell that the cause is about, of the candidate or else of the reference; None: none."""
    why = found.cause if isinstance(found, PairAccount) else cause(found)
    if why.kind not in ("memory", "store", "position") or not found.differing:
        return None
    layer: int | None = 0
    if isinstance(found, PairAccount):
        name, row = found.first[:2]
    elif not found.births:
        return None
    else:
        first = first_birth(found)
        name, row = first.sequence, first.position
        told = _LAYER.search(first.operation)
        layer = int(told[1]) if told else None
    stored = None
    if why.kind == "position":
        assert isinstance(found, Account)  # a pair is told no positions
        keys = (_KEYS.search(operation) for operation, at in found.unlike if at == (name, row))
        key = next((each for each in keys if each), None)
        if key is None:
            return None
        layer, stored = int(key[1]), row
    for side, path in reversed(list(zip(sides, names, strict=True))):
        sequence = [each.id for each in side.plan.members].index(name)
        facts = declared(side.setting.subject)
        watch = _CellWatch(side.plan, facts, path, sequence, row, layer, stored)
        with events.listening(watch), watching(watch):
            side.run()
        if watch.found is not None:
            return watch.found
    return None

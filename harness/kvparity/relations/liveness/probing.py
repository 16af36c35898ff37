"""Relation *liveness*: a computed row depends on each cached key and value it sees, and no other.

When the last row of a sequence has been computed, one cached key and value of one head is changed,
the row is computed again, and its digest must change exactly where the layer's window shows the
position. Every change is undone. What is put in place of a key is large, so that no rounding can
hide it, and finite, so that a weight of zero does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.words import some
from kvparity.plan.results import Outcome
from kvparity.plan.schedule import Plan, Span, Step
from kvparity.record.execute import Record, at_work
from kvparity.record.run_events import Watch
from kvparity.relations.bits_and_limits import Comparison, other_work
from kvparity.relations.liveness.line import ChangedKey, LivenessDetails
from kvparity.subjects.base import LayeredCache, Session
from kvparity_kernels.digest import row_digest

LOUD = 64.0
"""Changed keys and values are so many times as large as the largest at their place."""
SHOWN = 8
"""Faults that a report lists."""


@dataclass
class Findings:
    """What all probes of one run showed.

    ``dead``: visible, and the row stays. ``ghosts``: hidden, and the row changes. ``unseen``:
    layers none of whose visible places is seen. ``unsteady``: a row that does not repeat its bits.
    """

    probes: int = 0
    visible: int = 0
    dead: list[ChangedKey] = field(default_factory=list)
    ghosts: list[ChangedKey] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    unsteady: str | None = None


@dataclass
class Prober(Watch):
    """Probes each sequence when the last of its rows that are wanted has been computed."""

    plan: Plan
    edges: Sequence[int]
    layers: Sequence[int] | None = None
    cache: LayeredCache | None = None
    found: Findings = field(default_factory=Findings)
    steps: int = 0

    def opened(self, session: Session) -> None:
        """Take the session's cache; raises ``UnsupportedError`` where it cannot be probed."""
        cache = session.cache()
        if not isinstance(cache, LayeredCache):
            raise UnsupportedError("the cache of this subject cannot be inspected layer by layer")
        for layer in self.layers or ():
            if layer >= cache.layers():
                raise UnsupportedError(
                    f"liveness of layer {layer} was asked for, but only {cache.layers()} layers "
                    "store keys; they are counted from 0"
                )
        self.cache = cache
        self.last = {
            span.sequence: number
            for number, step in enumerate(self.plan.schedule)
            for span in step
            if len(span.rows)
        }

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        """Probe what this step computed for the last time."""
        number, self.steps = self.steps, self.steps + 1
        for span in step:
            if self.last.get(span.sequence) == number and span.start:
                if self.cache is None or self.found.unsteady:
                    return
                last = replace(span, rows_from=span.stop - 1, rows_to=span.stop)
                member = self.plan.members[span.sequence].id
                _Row(self, self.cache, session, step, ids, last, member).probe()


@dataclass
class _Row:
    """The last row of one sequence, and the step that computes it."""

    prober: Prober
    cache: LayeredCache
    session: Session
    step: Step
    ids: Sequence[Sequence[int]]
    span: Span
    member: str

    def back(self) -> None:
        """To where the step begins: a window then still holds the oldest key that the row sees."""
        with at_work():
            for span in self.step:
                self.cache.truncate(span.sequence, span.start)

    def compute(self) -> Tensor:
        """The step again, of its rows only the probed one."""
        with at_work():
            wanted = tuple(
                self.span if span.sequence == self.span.sequence else _silent(span)
                for span in self.step
            )
            return torch.cat(list(self.session.forward(wanted, self.ids)))

    def again(self) -> int:
        """The digest of the row, computed from what the cache holds now; then back again."""
        rows = self.compute()
        self.back()
        if len(rows) != 1:
            raise SubjectError(f"the subject gave {some(len(rows), 'row')} of the 1 wanted")
        return int(row_digest(rows.detach().cpu()))

    def probe(self) -> None:
        """Probe every place, and leave the cache as the step did."""
        self.back()
        self._probe()
        self.compute()

    def _probe(self) -> None:
        found, row = self.prober.found, self.span.stop - 1
        first, second = self.again(), self.again()
        if first != second:
            found.unsteady = f"row {row} of {self.member} does not repeat its bits undisturbed"
            return
        layers = self.prober.layers or range(self.cache.layers())
        places = {layer: self._positions(layer) for layer in layers}
        for layer, positions in places.items():  # a lossy store may round what it gave again
            for position in positions:
                k, v = self._read(layer, position)
                self._write(layer, position, k, v)
        calm = self.again()
        for layer, positions in places.items():
            alive = [
                self._change(layer, head, position, calm)
                for position in positions
                for head in range(self._read(layer, position)[0].shape[1])
            ]
            shown = [seen for seen, visible in alive if visible]
            if shown and not any(shown):
                found.unseen.append(f"layer {layer}, by row {row} of {self.member}")
        if self.again() != calm:
            found.unsteady = f"row {row} of {self.member} changed after all was restored"

    def _change(self, layer: int, head: int, position: int, calm: int) -> tuple[bool, bool]:
        """(the row changed, the window shows the position); puts everything back."""
        window, row = self.cache.window(layer), self.span.stop - 1
        visible = window is None or position > row - window
        k, v = self._read(layer, position)
        seen = any(self._heard(layer, position, loud, calm) for loud in _loud(k, v, head))
        self._write(layer, position, k, v)
        found = self.prober.found
        found.probes += 1
        found.visible += visible
        if seen != visible:
            place = ChangedKey(
                sequence=self.member, row=row, layer=layer, head=head, position=position
            )
            (found.dead if visible else found.ghosts).append(place)
        return seen, visible

    def _heard(self, layer: int, position: int, loud: tuple[Tensor, Tensor], calm: int) -> bool:
        self._write(layer, position, *loud)
        return self.again() != calm

    def _positions(self, layer: int) -> list[int]:
        """First and last, the window's edges and those of tiles and splits, each with neighbours.

        Only what the layer holds, and what the step itself does not write.
        """
        row, start = self.span.stop - 1, self.span.start
        with at_work():
            live, window = self.cache.live(layer, self.span.sequence), self.cache.window(layer)
        wanted = {live.start, 1, start - 2, start - 1}
        if window is not None:
            wanted |= {row - window - 1, row - window, row - window + 1, row - window + 2}
        for edge in self.prober.edges:
            last = (start - 1) // edge * edge
            wanted |= {edge - 1, edge, edge + 1, last - 1, last, last + 1}
        return sorted(p for p in wanted if p in live and p < start)

    def _read(self, layer: int, position: int) -> tuple[Tensor, Tensor]:
        with at_work():
            return self.cache.read(layer, self.span.sequence, position, position + 1)

    def _write(self, layer: int, position: int, k: Tensor, v: Tensor) -> None:
        with at_work():
            self.cache.write(layer, self.span.sequence, position, k, v)


def _silent(span: Span) -> Span:
    return replace(span, rows_from=span.stop, rows_to=None)


def _loud(k: Tensor, v: Tensor, head: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Other keys and values ``[1, kv_heads, width]`` for one head.

    Signs by column, and their opposites: a query that turns from one of two opposite keys turns to
    the other.
    """
    column = torch.arange(max(k.shape[2], v.shape[2]), device=k.device)
    for sign in (1 - 2 * (column % 2), 2 * (column % 2) - 1, torch.ones_like(column)):
        changed = []
        for old in (k, v):
            new = old.clone()
            size = max(float(old[0].abs().max()), 1.0) * LOUD
            new[0, head] = (sign[: old.shape[2]] * size).to(old.dtype)
            changed.append(new)
        yield changed[0], changed[1]


def judge(prober: Prober, record: Record) -> Comparison:
    """What the probes of one run mean."""
    found = prober.found
    faults = len(found.dead) + len(found.ghosts)
    details = LivenessDetails(
        probes=found.probes,
        visible=found.visible,
        dead=tuple(found.dead[:SHOWN]),
        wrongly_alive=tuple(found.ghosts[:SHOWN]),
        unseen_layers=tuple(found.unseen),
    )

    def found_so(outcome: Outcome, reason: str) -> Comparison:
        return Comparison(
            outcome, reason, tokens=found.probes, differing_tokens=faults, details=details
        )

    if found.dead:
        words = f"{found.dead[0]}: it is visible, and the row does not depend on it"
        if found.unseen:
            words += f"; no key is seen in {found.unseen[0]}"
        return found_so("differs", words)
    if found.ghosts:
        words = f"{found.ghosts[0]}: it is hidden, and the row depends on it"
        return found_so("differs", words)
    if found.unsteady:
        return found_so("void", found.unsteady)
    idle = other_work("path", record)
    if idle is not None:
        return found_so("void", idle)
    if not found.visible:
        return found_so("void", "no row was computed that sees a cached key")
    hidden = found.probes - found.visible
    words = f"the last rows depend on {found.visible} places that they see"
    return found_so("holds", words + f", and on none of {hidden} hidden")

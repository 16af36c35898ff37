"""Inside the operation that gave birth to a difference: the first node where both sides part.

One row and its inputs are captured of both sides. How each side adds is observed (launches of this
project's kernels) or recovered by probes; it is told only if its replay gives the bits of both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvparity.births.account import Account
from kvparity.births.causes import first_birth
from kvparity.births.document import LocatedInside, LocatedNode
from kvparity.births.pairs import PairAccount
from kvparity.core.bits import differing
from kvparity.core.errors import UnsupportedError
from kvparity.record.path_run import PathRun
from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.parting import Parting, parting
from kvparity.relations.order.row_order import declared_row, probed_row
from kvparity.relations.order.row_replay import RowData, RowOrder
from kvparity.relations.order.sides import Side
from kvparity.run.inside_operator import operator_words
from kvparity.subjects import events
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.events import Attended, Wrote
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.stream import Launched, listening

_ATTENTION = re.compile(r"layers\.(\d+)\.?\S* attention$")


@dataclass(frozen=True)
class Inside:
    """``words``: what was found in an operation, or why it stays a box; ``parting``: the node."""

    words: str
    parting: Parting | None = None

    @property
    def box(self) -> bool:
        """Whether nothing was entered."""
        return self.words.startswith("a black box")

    def value(self) -> LocatedInside:
        """As it is kept."""
        node = None if self.parting is None else LocatedNode(**vars(self.parting))
        return LocatedInside(words=self.words, node=node)


@dataclass
class _AwaitedRow:
    """Waits for a row of a layer, and for the order of the kernel that computed it."""

    layer: int
    sequence: int
    position: int
    found: Attended | None = None
    order: ReductionOrder | None = None
    launched: list[ReductionOrder] = field(default_factory=list)

    def launch(self, event: Launched) -> None:
        if event.name in ("attention.prefill", "attention.decode_split"):
            told = event.facts["constexprs"]
            self.launched.append(ReductionOrder(split=told["SPLIT"], tile=told["TILE"]))

    def wrote(self, event: Wrote) -> None:
        pass

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        own = sequence == self.sequence and self.position in positions
        return (self.position,) if own else ()

    def attended(self, event: Attended) -> None:
        if (event.layer, event.sequence, event.position) == (
            self.layer,
            self.sequence,
            self.position,
        ):
            self.found = event
            self.order = self.launched[-1] if self.launched else None
        self.launched.clear()


def inside(
    found: Account | PairAccount, sides: tuple[PathRun, PathRun], names: tuple[str, str]
) -> Inside | None:
    """What can be told of the first birth; None: there is none."""
    if not found.differing:
        return None
    if isinstance(found, PairAccount):
        layer, (sequence, position, _) = 0, found.first
    else:
        if not found.births:
            return None
        first = first_birth(found)
        sequence, position = first.sequence, first.position
        told = _ATTENTION.search(first.operation)
        if told is None or not isinstance(sides[0].subject, DecoderSubject):
            return Inside(operator_words(sides, first.operation, (sequence, position), names))
        layer = int(told[1])
    try:
        return _attention(sides, layer, sequence, position, names)
    except (NotATree, ProbeLied, NotMeasured, UnsupportedError) as error:
        return Inside(f"a black box with equal inputs: {error}")


def _attention(
    sides: tuple[PathRun, PathRun],
    layer: int,
    sequence: str,
    position: int,
    names: tuple[str, str],
) -> Inside:
    rows = [_captured(side, layer, sequence, position) for side in sides]
    one, two = (row.found for row in rows)
    if one is None or two is None:
        return Inside("a black box: one side does not report what it attends to")
    pairs = ((one.q, two.q), (one.k, two.k), (one.v, two.v))
    if any(a.shape != b.shape or bool(differing(a, b).any()) for a, b in pairs):
        return Inside("a black box with different inputs: queries, keys or values differ")
    if one.softcap or one.bias is not None:
        return Inside("a black box with equal inputs: a softcap or bias of scores is not replayed")
    data = RowData(one.q.cpu(), one.k.cpu(), one.v.cpu(), one.scale, one.sinks)
    first, second = (
        _order(side.subject, row, name) for side, row, name in zip(sides, rows, names, strict=True)
    )
    results = one.out.cpu(), two.out.cpu()
    if not bool(differing(*results).any()):
        return Inside("a black box with equal inputs: only the log-sum-exp differs")
    node = parting(data, (first, second), results, names)
    if node is None:
        return Inside("a black box with equal inputs: no replay gives the bits of both sides")
    return Inside(node.words(*names), node)


def _captured(side: PathRun, layer: int, sequence: str, position: int) -> _AwaitedRow:
    number = [each.id for each in side.plan.members].index(sequence)
    row = _AwaitedRow(layer, number, position)
    with listening(Launched, row.launch), events.listening(row):
        side.run()
    return row


def _order(subject: Subject, row: _AwaitedRow, name: str) -> RowOrder:
    """How the captured row was added.

    Raises:
        NotMeasured: it cannot be told; what the probes raise.
    """
    event = row.found
    assert event is not None
    if row.order is not None:
        sink = event.sinks is not None
        return declared_row(row.order, event.length, event.first, event.q.shape[-1], sink)
    if not isinstance(subject, AttentionSubject):
        raise NotMeasured(f"the attention that {name} ran cannot be called alone")
    if event.decode:
        return probed_row(Side(subject, "decode", keys=event.length, batch=1, rows=1))
    return probed_row(Side(subject, "prefill", keys=event.length, batch=1, rows=event.length))

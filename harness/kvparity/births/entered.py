"""Inside an operation that several operators of torch compute: which of them parts first.

Between two reports of a model torch executes operators, one after the other. Both sides' results
are kept of one call, and the one row is cut out of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.births.digests import Place, computing
from kvparity.births.operators import OperatorCall, OperatorLog
from kvparity.core.bits import differing, ulps
from kvparity.core.words import some
from kvparity.record.path_run import PathRun
from kvparity.subjects.events import Computed, Places


@dataclass(frozen=True)
class Call:
    """What torch executed for an operation: operators that gave a tensor, in order.

    ``batch`` and ``width`` of the call; ``row`` and ``column``: where the token is. ``columns``: of
    ``keys`` columns of the cache those with the keys up to the token's, by position.
    """

    operators: tuple[OperatorCall, ...]
    batch: int
    width: int
    row: int
    column: int
    keys: int
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """The first operator whose row parts: ``number`` of ``of``; how many of the row's ``elements``
    differ, by up to ``ulps``."""

    name: str
    number: int
    of: int
    differing: int
    elements: int
    ulps: int

    def words(self) -> str:
        """A sentence."""
        off = f"{self.differing} of {self.elements} elements, by up to {some(self.ulps, 'ulp')}"
        return f"operator {self.number} of {self.of}, {self.name}, differs first: {off}"


def call_of(run: PathRun, operation: str, place: Place) -> Call | None:
    """Run a path and keep its last call of an operation for a token."""
    found: Call | None = None
    log = OperatorLog()
    read: Places = ()

    def heard(event: Computed) -> None:
        nonlocal found, read
        calls = log.taken_whole()
        if event.operation.endswith(" keys"):
            read = event.places
        at = _at(event, place) if event.operation == operation else None
        if at is not None:
            kept = tuple(call.kept() for call in calls)
            keys = read[at[0]] if operation.endswith(" attention") and read else ()
            shape = len(event.places), len(event.places[0])
            found = Call(kept, *shape, *at, len(keys), _columns(keys, place))
        log.taken()

    with log, computing(run, heard):
        run.run()
    return found


def _at(event: Computed, place: Place) -> tuple[int, int] | None:
    for b, row in enumerate(event.places):
        for t, own in enumerate(row):
            if own == place:
                return b, t
    return None


def _columns(keys: Sequence[Place | None], place: Place) -> tuple[int, ...]:
    """Those of the keys that the token may see, by position."""
    seen = [(p[1], c) for c, p in enumerate(keys) if p and p[0] == place[0] and p[1] <= place[1]]
    return tuple(column for _, column in sorted(seen))


def first_operator(one: Call, two: Call) -> Operator | None:
    """The first operator of which the row differs, or None: they cannot be compared, or none."""
    names = [[each.name for each in call.operators] for call in (one, two)]
    if names[0] != names[1]:
        return None
    for number, (x, y) in enumerate(zip(one.operators, two.operators, strict=True)):
        a, b = x.gave, y.gave
        rows = row_of(a, one, b.shape, two), row_of(b, two, a.shape, one)
        if rows[0] is None or rows[1] is None or rows[0].shape != rows[1].shape:
            return None
        off = differing(rows[0], rows[1])
        if bool(off.any()):
            return Operator(
                name=names[0][number],
                number=number + 1,
                of=len(names[0]),
                differing=int(off.sum()),
                elements=off.numel(),
                ulps=int(ulps(rows[0], rows[1])[off].max()),
            )
    return None


def row_of(of: Tensor, call: Call, other: Sequence[int], there: Call) -> Tensor | None:
    """The token's part of what an operator gave, ``other`` being the shape on the other side.

    None: which part it is cannot be told.
    """
    if of.dim() != len(other) or of.dim() < 2 or not of.is_floating_point():
        return None
    sizes = list(zip(of.shape, other, strict=True))
    last = of.dim() - 1
    if call.keys and sizes[last] == (call.keys, there.keys):
        of = of.index_select(last, torch.tensor(call.columns, device=of.device))
    tokens = [dim for dim in range(1, last) if sizes[dim] == (call.width, there.width)]
    if sizes[0] == (call.batch * call.width, there.batch * there.width) and last == 1:
        return of[call.row * call.width + call.column]
    if len(tokens) != 1 or of.shape[0] % call.batch:
        return None
    each = of.shape[0] // call.batch
    return of.narrow(0, call.row * each, each).select(tokens[0], call.column)

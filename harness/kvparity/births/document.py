"""What ``locate`` leaves in a run folder, for the report: written and read by these models only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, model_validator

from kvparity.births.account import Account
from kvparity.core.errors import RunFolderError
from kvparity.core.values import LIST, Count, Texts, Value

FOLDER = "located"
"""Of a run folder; a file for each case that was located, the last time."""
Numbers = Annotated[tuple[Count, ...], LIST]


class LocatedOperation(Value):
    """An operation that gave some token other bits."""

    operation: str
    """its name"""
    differs: Numbers
    """at these numbers of `places`"""
    born: Numbers
    """at these although all that it was given was equal"""
    ulps: Count
    """how far its births are apart at most"""


class LocatedMap(Value):
    """Which operations differ, and at which tokens."""

    places: Annotated[tuple[Annotated[tuple[str, Count], LIST], ...], LIST]
    """sequence and position of every token at which something differs"""
    operations: Annotated[tuple[LocatedOperation, ...], LIST]
    """in the order of computation"""

    @model_validator(mode="after")
    def _is_whole(self) -> LocatedMap:
        for each in self.operations:
            if any(number >= len(self.places) for number in (*each.differs, *each.born)):
                raise ValueError(f"{each.operation!r} is at a place that is not listed")
        return self


class LocatedNode(Value):
    """The first node inside attention at which both sides part; both sides' bits are replayed."""

    node: str
    """score, maximum, denominator, weight, sum of P V or result"""
    head: Count
    """of the query"""
    at: Count
    """its key or column"""
    ulps: Count
    """how far it is apart"""
    walks: Annotated[tuple[str, str], LIST]
    """how the reference and the candidate walk the keys"""
    sums: str
    """the first partial sum that one side alone forms, or why else"""


class LocatedInside(Value):
    """How far the first operation that diverges could be entered."""

    words: str
    """what was found in it, or why it stays a box"""
    node: LocatedNode | None
    """null: no node of attention was found"""


class WritingStep(Value):
    """The step that wrote a cell last."""

    step: Count
    """from 0"""
    sequence: str
    """of what it computed; a donor's where a prefix was taken over"""
    first: Count
    """the first position that it wrote"""
    last: Count
    """the last"""


class LocatedCell(Value):
    """A key and a value of a cache that are read otherwise than they were written, or were written
    for another position."""

    path: str
    """the side whose cache it is"""
    layer: Count
    """of the model, from 0"""
    sequence: str
    """whose key it is"""
    position: Count
    """of the key"""
    slot: Count | None
    """in the store of the layer; null where the cache names no slots"""
    page_slots: Count | None
    """slots of a page; null where there are no pages"""
    part: Literal["key", "value", "key and value"]
    """what is otherwise"""
    written: WritingStep | None
    """null: no step wrote it"""
    read_step: Count | None
    """the step that first reads it otherwise; null where it is read as it was written"""
    read_by: Count | None
    """the position of the query that does"""
    holds: str
    """what is there, in words"""

    def words(self) -> str:
        """A sentence."""
        where = f"layer {self.layer}, sequence {self.sequence}, position {self.position}"
        if self.slot is not None:
            where += f", slot {self.slot}"
        if self.slot is not None and self.page_slots:
            where += f" (page {self.slot // self.page_slots}, place {self.slot % self.page_slots})"
        told = [f"the {self.part} of {where} of {self.path}'s cache", self._written()]
        if self.read_step is not None:
            told.append(
                f"first read differently in step {self.read_step}, by the query at position "
                f"{self.read_by}"
            )
        return f"{', '.join(told)}: {self.holds}"

    def _written(self) -> str:
        if self.written is None:
            return "written by no step"
        first, last = self.written.first, self.written.last
        told = f"position {first}" if first == last else f"positions {first} to {last}"
        whose = "" if self.written.sequence == self.sequence else f" of {self.written.sequence}"
        return f"written in step {self.written.step} ({told}{whose})"


class KeptAccount(Value):
    """The account of one case, beside all that ``kvparity locate --json`` prints of it."""

    model_config = ConfigDict(extra="ignore")

    case: str
    """its id"""
    words: str
    """the account in a few lines, or why there is none"""
    said: Texts = ()
    """all of it, as the command prints it"""
    map: LocatedMap | None = None
    """null: a pair of kernels, which has no operations"""
    inside: LocatedInside | None = None
    """the first operation that diverges; null: it was not looked into"""
    cell: LocatedCell | None = None
    """the cell of the cache that the cause is about; null: it is about none, or none was seen"""


def map_of(found: Account) -> LocatedMap:
    """Every operation that differs somewhere. Its inputs are no operation of their own, unless
    they part by themselves."""
    born = {(each.operation, (each.sequence, each.position)): each.ulps for each in found.births}
    with_births = {operation for operation, _ in born}
    places = sorted({place for _, place in (*found.unlike, *born)})
    number = {place: at for at, place in enumerate(places)}
    differs: dict[str, set[int]] = defaultdict(set)
    for operation, place in (*found.unlike, *born):
        if operation in with_births or not operation.endswith(" input"):
            differs[operation].add(number[place])
    return LocatedMap(
        places=tuple(places),
        operations=tuple(
            LocatedOperation(
                operation=name,
                differs=tuple(sorted(at)),
                born=tuple(sorted(number[p] for operation, p in born if operation == name)),
                ulps=max((far for (own, _), far in born.items() if own == name), default=0),
            )
            for name, at in differs.items()
        ),
    )


def file_of(folder: Path, case: str) -> Path:
    """Where the account of a case of a run lies."""
    return folder / FOLDER / f"{case}.json"


def write(folder: Path, case: str, document: Mapping[str, object]) -> None:
    """Write the whole account of a case, or nothing.

    Raises:
        RunFolderError: it cannot be written.
    """
    whole = file_of(folder, case)
    part = whole.with_name(whole.name + ".part")
    try:
        whole.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        part.replace(whole)
    except OSError as error:
        raise RunFolderError(f"{whole} could not be written: {error.strerror}") from error

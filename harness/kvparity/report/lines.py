"""Lines of a run folder as values: written and read by these models only."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.config import JsonDict

from kvparity.core.errors import RunFolderError, SubjectError
from kvparity.core.values import (
    LIST,
    Count,
    Counts,
    Digest,
    Hex,
    Json,
    RunLine,
    Seconds,
    Texts,
    Value,
    sentence,
)
from kvparity.relations.reproduction import RunPlace

Bits = Annotated[tuple[Hex, ...], LIST]
Row = Annotated[tuple[Count, Count, Digest, Bits], LIST]
"""Sequence, position, digest of the row, bits of each logprob."""

Run = Annotated[tuple[Count, Count, Count], LIST]
"""Sequence, first row, the row behind the last."""


def _of_one_sequence(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    places = [row[:2] for row in rows]
    if places != sorted(set(places)) or len({place[0] for place in places}) > 1:
        raise ValueError(f"its rows are at {[list(place) for place in places]}")
    return rows


Rows = Annotated[tuple[Row, ...], LIST, AfterValidator(_of_one_sequence)]
"""The chosen rows of one path: of one sequence, in order."""


class Launches(Value):
    """What one path launched: how often, and each kernel's constants by name."""

    counts: Counts
    """how often, by kernel"""
    kernels: dict[str, Json]
    """by name: constants, dtypes, options and the hash of the compiled code"""


_ROWS_UNLESS_PROBED: JsonDict = {
    "if": {"properties": {"probed": {"const": True}}},
    "then": {"properties": {"rows": False}},
    "else": {"required": ["rows"]},
}


class PathLine(RunLine):
    """A path of a unit that has run. ``rows``: of a path that was not probed."""

    model_config = ConfigDict(json_schema_extra=_ROWS_UNLESS_PROBED)
    file: ClassVar[str] = "paths.jsonl"
    unit: str
    """workload and format"""
    path: str
    """the path"""
    probed: bool
    """whether it ran with a probe (liveness, trace), so that its rows are not those of the path"""
    observed: Counts
    """what was observed to run, counted where the work is done"""
    launches: Launches
    """launches of this project's kernels, with their details"""
    seconds: Seconds | None
    """how long it ran"""
    rows: Rows = ()
    """as in `units.jsonl`; only of a path that was not probed"""
    compared: Annotated[tuple[Run, ...], LIST] = ()
    """where a workload chooses its rows: those that this path compared, as `[sequence, first,
    behind the last]`"""
    steps: str = ""
    """of a path that was drawn: its steps, as a contract would write them"""

    @model_validator(mode="after")
    def _rows_unless_probed(self) -> PathLine:
        if self.probed and "rows" in self.model_fields_set:
            raise ValueError("it was probed, and has rows")
        if not self.probed and "rows" not in self.model_fields_set:
            raise ValueError("rows is missing")
        return self

    @property
    def key(self) -> tuple[str, bool]:
        """By which lines of one unit are told apart."""
        return self.path, self.probed


class Sequence(Value):
    """One sequence of a unit: what it was prompted with, and what was drawn."""

    id: str
    """`workload/number`"""
    prompt: Annotated[int, Field(ge=1)]
    """tokens of the prompt"""
    ids: Annotated[tuple[Count, ...], LIST]
    """all token ids; for a kernel pair, zeros"""

    @model_validator(mode="after")
    def _drawn(self) -> Sequence:
        if self.prompt >= len(self.ids):
            raise ValueError(f"{self.id!r} has {len(self.ids)} ids and a prompt of {self.prompt}")
        return self


class UnitLine(RunLine):
    """A unit that has ended: its tokens, and what its paths ran."""

    file: ClassVar[str] = "units.jsonl"
    unit: str
    """workload and format"""
    sequences: Annotated[tuple[Sequence, ...], LIST, Field(min_length=1)]
    """of the workload"""
    subject: Json
    """as in the report"""
    observed: dict[str, Counts]
    """by path: what was observed to run, counted where the work is done"""
    launches: dict[str, Launches]
    """by path: launches of this project's kernels, with their details"""
    seconds: dict[str, Seconds]
    """by path"""
    rows: dict[str, Rows]
    """by path: up to three rows, chosen by the seed, as `[sequence, position, digest, bits of each
    logprob]`: what a fresh process must reproduce"""

    @property
    def tokens(self) -> list[list[int]]:
        """By sequence."""
        return [list(sequence.ids) for sequence in self.sequences]


class RetryLine(RunLine):
    """On Ray: an attempt that was lost with its machine, or one that gave other bits."""

    file: ClassVar[str] = "retries.jsonl"
    task: str
    """the unit, case or control that ran again"""
    attempt: Annotated[int, Field(ge=1)]
    """which attempt this is about, from 1"""
    node: str | None
    """Ray's id of its node; null if none had answered"""
    why: str
    """how the machine was lost, or what this attempt gave otherwise than one before"""
    changed: Texts
    """the cases that differ for it; or the control, as `name of relation`. Empty for an attempt
    that was lost"""


class FreshRows(Value):
    """Rows of a unit that a fresh process computed, by path."""

    unit: str
    rows: dict[str, Rows]


class AgainRows(Value):
    """What a process gave for a path that it ran, perhaps more than once.

    ``idle``: why its rows show nothing. ``unplanted``: why a control could not be planted;
    ``ended``: how the run with it ended, where it did.
    """

    name: str
    place: RunPlace
    rows: Annotated[tuple[Annotated[tuple[Row, ...], LIST], ...], LIST] = ()
    unfinite: Count = 0
    idle: str | None = None
    unplanted: str | None = None
    ended: str | None = None


class ControlEnd(Value):
    """What a worker says of a control; ``unplanted``: why it could not be planted."""

    name: str
    relation: str
    unplanted: str | None = None


AnyValue = TypeVar("AnyValue", bound=Value)
AnyLine = TypeVar("AnyLine", bound=RunLine)


def parsed(model: type[AnyLine], value: object, place: str) -> AnyLine:
    """The line that JSON holds at ``place``.

    Raises:
        RunFolderError: it is none of ``model``.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise edited(place, sentence(error)) from None


def answered(model: type[AnyValue], value: object) -> AnyValue:
    """What a process of the subject answers.

    Raises:
        SubjectError: it is none of ``model``, so it is no answer of kvparity's.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        words = f"the subject's process gave an answer that is not kvparity's: {sentence(error)}"
        raise SubjectError(words) from None


def edited(place: str, wrong: str) -> RunFolderError:
    """What is said of a line that kvparity did not write so."""
    return RunFolderError(
        f"{place}: {wrong}. It was changed since it was written: remove the line, and --resume "
        "runs again what is missing, or use a new --run-dir"
    )

"""Lines of a run folder as values: written and read by these models only."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, model_validator

from kvparity.core.errors import RunFolderError
from kvparity.core.values import (
    LIST,
    Count,
    Counts,
    Digest,
    Hex,
    Json,
    Line,
    Seconds,
    Value,
    sentence,
)

Bits = Annotated[tuple[Hex, ...], LIST]
Row = Annotated[tuple[Count, Count, Digest, Bits], LIST]
"""Sequence, position, digest of the row, bits of each logprob."""


def _of_one_sequence(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    places = [row[:2] for row in rows]
    if places != sorted(set(places)) or len({place[0] for place in places}) > 1:
        raise ValueError(f"its rows are at {[list(place) for place in places]}")
    return rows


Rows = Annotated[tuple[Row, ...], LIST, AfterValidator(_of_one_sequence)]
"""The chosen rows of one path: of one sequence, in order."""
_ROWS = TypeAdapter(Rows, config=ConfigDict(strict=True))


class Launches(Value):
    """What one path launched: how often, and each kernel's constants by name."""

    counts: Counts
    kernels: dict[str, Json]


class PathLine(Line):
    """A path of a unit that has run. ``rows``: of a path that was not probed."""

    file: ClassVar[str] = "paths.jsonl"
    unit: str
    path: str
    probed: bool
    observed: Counts
    launches: Launches
    seconds: Seconds | None
    rows: Rows = ()

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


AnyLine = TypeVar("AnyLine", bound=Line)


def parsed(model: type[AnyLine], value: object, place: str) -> AnyLine:
    """The line that JSON holds at ``place``.

    Raises:
        RunFolderError: it is none of ``model``.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise edited(place, sentence(error)) from None


def rows_wrong(rows: object) -> str | None:
    """Why the rows of one path cannot be, or None."""
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        return sentence(error)
    return None


def edited(place: str, wrong: str) -> RunFolderError:
    """What is said of a line that kvparity did not write so."""
    return RunFolderError(
        f"{place}: {wrong}. It was changed since it was written: remove the line, and --resume "
        "runs again what is missing, or use a new --run-dir"
    )

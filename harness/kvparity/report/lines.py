"""Lines of a run folder as values: written and read by these models only."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from kvparity.core.errors import RunFolderError

Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]
"""By name."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_LIST = Field(strict=False)
"""JSON has lists where a frozen value has tuples; what they hold stays strict."""
Digest = Annotated[str, Field(pattern="^0x[0-9a-f]{16}$")]
Bits = Annotated[tuple[Annotated[str, Field(pattern="^0x[0-9a-f]+$")], ...], _LIST]
Row = Annotated[tuple[Count, Count, Digest, Bits], _LIST]
"""Sequence, position, digest of the row, bits of each logprob."""


def _of_one_sequence(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    places = [row[:2] for row in rows]
    if places != sorted(set(places)) or len({place[0] for place in places}) > 1:
        raise ValueError(f"its rows are at {[list(place) for place in places]}")
    return rows


Rows = Annotated[tuple[Row, ...], _LIST, AfterValidator(_of_one_sequence)]
"""The chosen rows of one path: of one sequence, in order."""
_ROWS = TypeAdapter(Rows, config=ConfigDict(strict=True))


class Value(BaseModel):
    """Frozen; no number in words, no truth as a number, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def document(self) -> dict[str, Any]:
        """As JSON has it, in the order of the fields."""
        return self.model_dump(exclude_unset=True)


class Line(Value):
    """A line of ``file``."""

    file: ClassVar[str]


class Launches(Value):
    """What one path launched: how often, and each kernel's constants by name."""

    counts: Counts
    kernels: dict[str, dict[str, Any]]


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
        raise edited(place, _sentence(error)) from None


def rows_wrong(rows: object) -> str | None:
    """Why the rows of one path cannot be, or None."""
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        return _sentence(error)
    return None


def edited(place: str, wrong: str) -> RunFolderError:
    """What is said of a line that kvparity did not write so."""
    return RunFolderError(
        f"{place}: {wrong}. It was changed since it was written: remove the line, and --resume "
        "runs again what is missing, or use a new --run-dir"
    )


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, in JSON's words."""
    first = error.errors(include_url=False)[0]
    names = (f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
    where = "".join(names).removeprefix(".")
    if first["type"] == "missing":
        return f"{where} is missing"
    if first["type"] == "extra_forbidden":
        return f"{where} is not a field of this line"
    if first["type"] == "value_error":
        return ": ".join(part for part in (where, str(first["ctx"]["error"])) if part)
    wanted = first["msg"].partition(" should ")[2]
    wanted = wanted.replace("tuple", "list").replace("dictionary", "mapping")
    return f"{where} is {reprlib.repr(first['input'])}, and should {wanted}"

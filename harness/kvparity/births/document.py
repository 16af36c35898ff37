"""What ``locate`` leaves in a run folder, for the report: written and read by these models only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

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

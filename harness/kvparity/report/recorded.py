"""What replay needs of lines of any schema, and of runs that are edited on purpose: no more."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict

from kvparity.core.values import LIST, Count, RunLine, Value
from kvparity.plan.results import CaseLine, Outcome
from kvparity.report.lines import UnitLine


class RecordedCase(RunLine):
    """A case as some schema wrote it; what it has beside these is compared as it stands."""

    model_config = ConfigDict(extra="allow")

    file: ClassVar[str] = CaseLine.file
    id: str
    relation: str
    verdict: Outcome


class RecordedTokens(Value):
    """The tokens of one sequence."""

    model_config = ConfigDict(extra="ignore")

    ids: Annotated[tuple[Count, ...], LIST]


class RecordedUnit(RunLine):
    """The tokens of a unit; the oldest runs kept no rows of it."""

    model_config = ConfigDict(extra="ignore")

    file: ClassVar[str] = UnitLine.file
    unit: str
    sequences: Annotated[tuple[RecordedTokens, ...], LIST]

    @property
    def tokens(self) -> list[list[int]]:
        """By sequence."""
        return [list(sequence.ids) for sequence in self.sequences]

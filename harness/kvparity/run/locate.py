"""Where a case of a run parts, looked for on the run's own tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity.births.account import ROOM, Account, account
from kvparity.births.document import KeptAccount, LocatedCell, LocatedMap, map_of, write
from kvparity.births.pairs import PairAccount, pair_account
from kvparity.births.text import account_json, lines
from kvparity.core.errors import UnsupportedError
from kvparity.run.cell import cell
from kvparity.run.inside import Inside, inside
from kvparity.run.kept import Since
from kvparity.run.reopen import reopen, unit_of
from kvparity_contracts.loader import LoadedContract
from kvparity_kernels import device_model

SCHEMA_VERSION = 1
RELATION = "invariance"
UNCHANGED = Since((), ())
"""No file of the subject is another one now."""


@dataclass(frozen=True)
class Located:
    """The account of a case, with the names of its sides.

    ``found``: births and what is equal once they are put right, or of a pair of kernels where rows
    part; ``inside``: how far the first birth could be entered; ``cell``: of the cache, where the
    cause is about one; ``since``: files of the subject that
    changed since the run.
    """

    case: str
    workload: str
    dtype: str
    reference: str
    candidate: str
    found: Account | PairAccount
    inside: Inside | None = None
    cell: LocatedCell | None = None
    since: Since = UNCHANGED

    def __str__(self) -> str:
        return self.text()

    @property
    def complete(self) -> bool:
        """Whether the whole difference is accounted for."""
        return self.found.complete

    def text(self) -> str:
        """What a person reads."""
        head = f"{self.case}: {self.candidate} against {self.reference}"
        sides = self.reference, self.candidate
        own = self.found
        told = own.lines(*sides) if isinstance(own, PairAccount) else lines(own, *sides)
        first, *rest = told
        counted = first.partition(": ")[2]
        if self.cell is not None:
            rest.insert(2, f"    cell: {self.cell.words()}")
        if self.inside is not None:
            rest.insert(2, f"    inside: {self.inside.words}")
        return "\n".join([f"{head} over {self.workload}, {self.dtype}: {counted}", *rest])

    def brief(self) -> str:
        """The same in five lines: the head, the first birth or row, what is known, the cause."""
        told = self.text().splitlines()
        if len(told) < 5:
            return "\n".join(told)
        if self.cell is not None:
            return "\n".join([*told[:2], f"    cell: {self.cell.words()}", *told[-2:]])
        entered = self.inside is not None and not self.inside.box
        if isinstance(self.found, PairAccount):  # 5 lines behind the columns, or 6
            ends = told[3:] if self.inside is None else told[3:5] if entered else told[4:6]
            return "\n".join([*told[:2], *ends[:2], told[-1]])
        return "\n".join([*told[:2], told[3 if entered else 2], *told[-2:]])

    @property
    def map(self) -> LocatedMap | None:
        """Which operations differ, and where; None of a pair of kernels, which has none."""
        return None if isinstance(self.found, PairAccount) else map_of(self.found)

    def keep(self, folder: Path) -> None:
        """Leave the account in the run folder, in place of an earlier one, for its report.

        Raises:
            RunFolderError: it cannot be written.
        """
        kept = KeptAccount(
            case=self.case,
            words=self.brief(),
            said=tuple(self.text().splitlines()),
            map=self.map,
            inside=None if self.inside is None else self.inside.value(),
            cell=self.cell,
        )
        write(folder, self.case, self.json() | kept.document())

    def json(self) -> dict[str, object]:
        """The document."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "case": self.case,
            "reference": self.reference,
            "candidate": self.candidate,
            "complete": self.complete,
        }
        own = self.found
        if self.inside is not None:
            head["inside"] = self.inside.value().document()
        if self.cell is not None:
            head["cell"] = self.cell.document()
        return head | (own.json() if isinstance(own, PairAccount) else account_json(own))


@device_model.using(None)  # what is put in force for the case ends with it
def locate(
    loaded: LoadedContract,
    folder: Path,
    case_id: str,
    device: str,
    *,
    room: int = ROOM,
    until: float = math.inf,
    tell: Callable[[Located], None] = lambda found: None,
) -> Located:
    """Run both sides of a case again, on the tokens of the run, and account for the difference.

    ``tell`` is called with the account before the first birth is looked into, which takes time, and
    is left out behind ``until`` (by the monotonic clock), as are births that were not found by
    then.

    Raises:
        RunFolderError: the run has no such case, or its unit has no evidence yet.
        UnsupportedError: the case compares no bits of two paths.
    """
    found = reopen(loaded, folder, case_id, device)
    relation = str(found.recorded.get("relation"))
    if found.kernel_case is not None or relation != RELATION:
        raise UnsupportedError(
            f"{case_id} is a case of {relation}; only cases of {RELATION} can be located"
        )
    opened = unit_of(found)
    case, runner = opened.case, opened.runner
    assert case.reference is not None  # a case of invariance has one
    sides = runner.side(case.reference), runner.side(case.path)
    subject = opened.setting.subject
    if subject.vocab:
        got: Account | PairAccount = account(*sides, room=room, until=until)
    else:
        got = pair_account(*sides, runner.exact())
    names = str(case.reference), str(case.path)
    found_out = Located(case_id, case.workload, case.numerics.execution, *names, got)
    tell(found_out)
    if time.monotonic() > until:
        return found_out
    found_out = replace(found_out, cell=cell(got, sides, names))
    tell(found_out)
    return replace(found_out, inside=inside(got, sides, names))

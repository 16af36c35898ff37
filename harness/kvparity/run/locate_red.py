"""At the end of a run that differs: where its cases part, looked for within a time budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from kvparity.births import document
from kvparity.births.document import KeptAccount
from kvparity.core import doing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.isolation.inside import inside
from kvparity.core.isolation.pool import Apart, InternalError, PoolTask
from kvparity.report.document import LocatedCase, RunReport
from kvparity.report.run_dir import Evidence, RunFolderError
from kvparity.run.locate import RELATION, locate
from kvparity_contracts.loader import LoadedContract

_UNSEEN = {
    "server": "a server shows no operations of its model",
    "sides": "recorded rollouts have no operations, and models that score them are not inspected",
}
"""Kinds of subjects that cannot be looked into, and why."""


SHARE = 0.9
"""Of the time, behind which nothing new is begun: what was found is still to be put right and
written before the process is killed."""


class _OverError(Exception):
    """The time is over."""


class LocatingStoppedError(KeyboardInterrupt):
    """Interrupted while cases were located; ``report`` is whole and written."""

    def __init__(self, report: RunReport) -> None:
        super().__init__()
        self.report = report

    @property
    def words(self) -> str:
        """What stands, and how to look on."""
        folder = self.report.run_dir
        case = next(_first_cases(self.report), "CASE")
        return (
            f"interrupted while cases were located; the verdict, {self.report.verdict.upper()}, is "
            f"written in {folder}; locate with: kvparity locate {folder} {case}"
        )


def located(
    report: RunReport,
    loaded: LoadedContract,
    folder: Path,
    device: str,
    budget: float,
    tell: Callable[[str], None],
) -> tuple[LocatedCase, ...]:
    """Locate the first differing case of each check, for ``budget`` seconds in all.

    The subject runs in a process of its own, which is killed when they are over. Nothing of this
    touches the verdict: what goes wrong is said, never raised.
    """
    if report.verdict != "differs":
        return ()
    cases = list(_first_cases(report))
    if words := _why_not(report, cases):
        return (LocatedCase(case=None, words=f"not located: {words}", file=None),)
    until, otherwise = time.monotonic() + budget, ""

    def watched(what: str) -> None:
        if time.monotonic() > until:
            raise _OverError
        tell(f"locating: {what}")

    try:
        with Apart(1, math.inf, watched) as pool:
            asked = loaded, folder, cases, device, time.time() + SHARE * budget
            list(pool.run([PoolTask(_locate_all, asked)]))
    except _OverError:
        again = f"kvparity locate {report.run_dir}"
        otherwise = f"the {budget:g} s of --locate-budget ended before; without a limit: {again}"
    except (SubjectError, UnsupportedError, RunFolderError, InternalError) as error:
        otherwise = str(error)
    return tuple(_told(folder, case, otherwise) for case in cases)


def kept_located(
    report: RunReport,
    loaded: LoadedContract,
    folder: Path,
    budget: float,
    tell: Callable[[str], None] = lambda what: None,
) -> RunReport:
    """The report with what :func:`located` says, also in the run folder; none for a budget of 0.

    Raises:
        LocatingStoppedError: in place of any other KeyboardInterrupt.
    """
    if not budget:
        return report
    try:
        found = located(report, loaded, folder, report.environment.device, budget, tell)
    except KeyboardInterrupt:
        raise LocatingStoppedError(report) from None
    if found:
        report = report.model_copy(update={"located": found})
        Evidence(folder.resolve()).finish(report)
    return report


def _first_cases(report: RunReport) -> Iterator[str]:
    for check in report.checks:
        differing = (c.id for c in check.cases if c.verdict == "differs" and c.recheck is None)
        if check.relation == RELATION and (first := next(differing, None)):
            yield first


def _why_not(report: RunReport, cases: Sequence[str]) -> str | None:
    if not cases:
        return "no two paths of the run differ in bits, and only that can be located"
    if inside():
        return "the subject ran in the process that asked for the run, and is not loaded again"
    return _UNSEEN.get(str(report.subject.get("kind")))


def _locate_all(
    loaded: LoadedContract, folder: Path, cases: Sequence[str], device: str, until: float
) -> bool:
    """Write the document of each case as soon as it is known; the task of the process.

    ``until``: by the clock on the wall, which processes share.
    """
    end = time.monotonic() + until - time.time()
    for case in cases:
        doing.task(f"case {case}")
        try:
            found = locate(
                loaded, folder, case, device, until=end, tell=lambda found: found.keep(folder)
            )
            found.keep(folder)
        except UnsupportedError as error:
            words = f"{case}: not located: {error}"
            document.write(folder, case, KeptAccount(case=case, words=words).document())
    return True


def _told(folder: Path, case: str, otherwise: str) -> LocatedCase:
    file = document.file_of(folder, case)
    try:
        words = KeptAccount.model_validate_json(file.read_bytes()).words
    except (OSError, ValidationError):  # none, or one that was edited before time ended
        return LocatedCase(case=case, words=f"{case}: not located: {otherwise}", file=None)
    return LocatedCase(case=case, words=words, file=f"{document.FOLDER}/{file.name}")

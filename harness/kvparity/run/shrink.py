"""The smallest case that fails as a case of a run does, beside its nearest one that passes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity.core.environment import settle, versions
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.core.lock import held
from kvparity.core.values import Json
from kvparity.core.words import some
from kvparity.run.failing import FailingCases
from kvparity.run.identity import subject_files
from kvparity.run.kept import Since, found_again, since_then
from kvparity.run.options import SHRINK_S
from kvparity.run.reopen import find_case, reopen
from kvparity.smallest.one_case import OneCase, of_case
from kvparity.smallest.reductions import SmallerCase
from kvparity.smallest.search import Search, TriedCase
from kvparity.smallest.tried import TriedFile
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.steps import LONGEST
from kvparity_kernels import device_model

SCHEMA_VERSION = 1
FOLDER = "shrink"
"""Of the run folder: what was tried, and the contracts that were found."""
ShrinkProgress = Callable[[int, str], None]
"""Called with how many cases were tried, and the smallest one that fails, in words."""


@dataclass(frozen=True)
class Shrunk:
    """What was found. ``failure``: what differs first; None in ``smallest``: nothing differs now.

    ``minimal``: no case that is smaller by one thing fails in the same way. ``repeats``: both cases
    gave their answers again at the end. ``tried``: cases that were looked at, ``asked``: how many
    were run now. ``since``: files that are others now than in the run.
    """

    case: str
    failure: str
    words: str
    start: OneCase
    smallest: OneCase | None
    passing: SmallerCase | None
    minimal: bool
    repeats: bool
    tried: int
    asked: int
    seconds: float
    file: Path
    since: Since

    @property
    def complete(self) -> bool:
        """Whether the case is as small as can be, and stands beside one that passes."""
        return self.minimal and self.repeats and self.passing is not None

    @property
    def edge(self) -> str:
        """``fails with 65 keys, passes with 64``."""
        if self.smallest is None:
            return ""
        if self.passing is None:
            return f"fails with {some(self.smallest.keys, 'key')}; no neighbouring case passes"
        other = self.passing
        if other.what == "steps":
            return f"fails {other.before}, passes {other.after}"
        if other.what.startswith(("tokens", "generated")) and other.case.keys != self.smallest.keys:
            return f"fails with {some(self.smallest.keys, 'key')}, passes with {other.case.keys}"
        return f"fails with {other.what} {other.before}, passes with {other.after}"

    def text(self) -> str:
        """What a person reads."""
        used = (
            (self.since.changed, "their current content was run"),
            (self.since.kept, "the content that the run kept was used"),
        )
        since = [f"changed since the run: {', '.join(each)}: {how}" for each, how in used if each]
        if self.smallest is None:
            none = f"{self.case}: nothing differs now ({self.words}); nothing was made smaller"
            return "\n".join([none, *since])
        shape = f"{told(self.start)} -> {told(self.smallest)}"
        counted = f"{some(self.tried, 'case')}, {self.seconds:.0f} s"
        end = "1-minimal: no case with one thing less fails in the same way"
        if not self.repeats:
            end = (
                "not deterministic: a case gave a different answer when rerun; this proves nothing"
            )
        elif not self.minimal:
            end = "not shown to be minimal: the budget ended; run the command again to continue"
        return "\n".join(
            [
                f"{self.case}: {self.failure}: {shape}",
                self.edge,
                *since,
                f"{end} ({counted})",
                "",
                self.smallest.text().rstrip(),
                "",
                f"kvparity verify {self.file}",
            ]
        )

    def __str__(self) -> str:
        return self.text()

    def json(self) -> dict[str, object]:
        """The document."""
        other = self.passing
        return {
            "schema_version": SCHEMA_VERSION,
            "case": self.case,
            "failure": self.failure or None,
            "reason": self.words,
            "smallest": None if self.smallest is None else self.smallest.document,
            "passing": None if other is None else other.case.document,
            "edge": self.edge or None,
            "minimal": self.minimal,
            "repeats": self.repeats,
            "complete": self.complete,
            "tried": self.tried,
            "run_now": self.asked,
            "seconds": round(self.seconds, 1),
            "changed_files": self.since.changed,
            "kept_files": self.since.kept,
            "contract": None if self.smallest is None else str(self.file),
        }


def told(case: OneCase) -> str:
    """Sequences, keys and path of a case, in words."""
    count = len(case.workload.lengths())
    path = case.path.kind if case.path.kind == "steps" else str(case.path)
    return f"{some(count, 'sequence')}, {some(case.keys, 'key')}, {path}"


@device_model.using(None)  # what is put in force for a case ends with it
def shrink(
    loaded: LoadedContract,
    folder: Path,
    case_id: str,
    device: str,
    *,
    budget: float = SHRINK_S,
    progress: ShrinkProgress = lambda tried, words: None,
) -> Shrunk:
    """Make a case of a run smaller for as long as it fails in the same way.

    Every case that is tried is a line of a file in the run folder, by which the same command goes
    on where it ended. Subjects run in this process.

    Raises:
        RunFolderError: the run has no such case, or it does not differ.
        UnsupportedError: the case compares no paths, or its steps are too many to be written.
    """
    with found_again(folder, loaded):
        return _shrink(loaded, folder, case_id, device, budget, progress)


def _shrink(
    loaded: LoadedContract,
    folder: Path,
    case_id: str,
    device: str,
    budget: float,
    progress: ShrinkProgress,
) -> Shrunk:
    found = reopen(loaded, folder, case_id, device)
    if found.kernel_case is not None:
        raise UnsupportedError(f"{case_id} looks at kernels: it has no sequences to take away")
    if found.recorded.get("verdict") != "differs":
        verdict = found.recorded.get("verdict")
        raise RunFolderError(f"{case_id} is '{verdict}' in this run; shrink takes one that differs")
    unit, case = find_case(found.loaded, case_id)
    steps = unit.plans.steps(case.path)
    if len(steps) > LONGEST:
        words = f"{len(steps)} characters, more than the {LONGEST} that a contract may write"
        raise UnsupportedError(
            f"the steps of {case_id} ({case.path}) have {words}; none can be taken away"
        )
    settle()
    began = time.monotonic()
    base = Path(found.loaded.path).resolve().parent
    start = of_case(found.loaded.contract, case, base, steps)
    failing = FailingCases(folder / FOLDER, device)
    about: Json = {
        "schema_version": SCHEMA_VERSION,
        "case": start.key,
        "versions": dict(versions()),
        "files": dict(subject_files(found.loaded)),
        "device": device,
    }
    file = folder / FOLDER / f"{case_id}.jsonl"
    with held(folder, "shrink"), TriedFile.open(file, about) as tried:
        first = failing.look(start)
        if first.outcome == "error":
            raise SubjectError(first.words)
        known = dict(tried.known) | {start.key: first}
        until = time.monotonic() + budget  # or a slow case would take all of it, each time

        def ask(small: OneCase) -> TriedCase:
            now = failing.look(small)
            if now.outcome == "same" and now.failure != first.failure:
                now = replace(now, outcome="other")
            tried.add(small.key, now)
            return now

        search = Search(
            ask,
            until,
            known,
            lambda count, best: progress(count, told(best)),
            start,
        )
        minimal = first.outcome == "same" and search.run(failing.steps)
    passing = next(search.neighbours(), None)
    claimed = [(search.best, first.outcome, first.failure)] if minimal or passing else []
    claimed += [(passing.case, "holds", "")] if passing else []
    # Each case was run once, and one of a subject that draws lots is what it is by chance.
    now = [(failing.look(case), outcome, failure) for case, outcome, failure in claimed]
    repeats = all((it.outcome, it.failure) == (outcome, failure) for it, outcome, failure in now)
    file = folder / FOLDER / f"{case_id}.yaml"
    smallest = search.best if first.outcome == "same" else None
    if smallest is not None:
        _write(file, smallest)
    return Shrunk(
        case=case_id,
        failure=first.failure,
        words=first.words,
        start=start,
        smallest=smallest,
        passing=passing if smallest is not None else None,
        minimal=minimal,
        repeats=repeats,
        tried=max(len(search.met), 1),
        asked=search.asked + 1 + len(now),
        seconds=time.monotonic() - began,
        file=file,
        since=since_then(folder, loaded),
    )


def _write(file: Path, smallest: OneCase) -> None:
    try:
        file.write_text(smallest.text(), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{file} cannot be written: {error.strerror}") from error

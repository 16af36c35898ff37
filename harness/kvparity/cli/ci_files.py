"""``kvparity verify``: what it leaves for a CI system to show.

``--junit`` and ``--badge`` say "the run did not finish" from the beginning on, so that no file of
an earlier run stands where a run was killed. GitHub is told without being asked: it says in
``GITHUB_ACTIONS`` that it listens.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kvparity.cli import replaceable, say, stop

if TYPE_CHECKING:
    from kvparity.report.document import RunReport
    from kvparity_contracts.loader import LoadedContract

Tell: TypeAlias = "Callable[[RunReport, LoadedContract], bool]"
"""Write all that was asked for; False where something could not be written, which is said."""
UNFINISHED = "the run did not finish"
_XML = (b"<?xml", b"<testsuite")
_SVG = (b"<?xml", b"<svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--junit",
        type=Path,
        metavar="FILE",
        help="also write a JUnit test for each case, control and verdict to FILE; with "
        "--invariant, of the second run",
    )
    parser.add_argument(
        "--badge", type=Path, metavar="FILE", help="also draw the verdict into FILE, an SVG"
    )


@contextmanager
def told(args: argparse.Namespace) -> Iterator[Tell]:
    """Around a verification: whatever becomes of it, the files say so."""
    if args.junit is not None:
        replaceable.may_replace("--junit", args.junit, "JUnit XML", _XML)
    if args.badge is not None:
        replaceable.may_replace("--badge", args.badge, "SVG", _SVG)
        if args.junit is not None and args.junit.resolve() == args.badge.resolve():
            raise stop.StopError(f"--badge {args.badge} is --junit; expected another")
    _unfinished(args, UNFINISHED)
    try:
        yield lambda report, loaded: _all(args, report, loaded)
    except BaseException as error:
        found = stop.of(error)
        words = found.message if found else f"{UNFINISHED}: {type(error).__name__}: {error}"
        _unfinished(args, words)
        raise


def failed(error: BaseException, words: str) -> None:
    """Where GitHub listens, why a command ended; of a contract, each problem at its line."""
    if (workspace := _github()) is None:
        return
    from kvparity.report.github import annotation, of_problems
    from kvparity_contracts.problems import ContractError

    if isinstance(error, ContractError):
        lines = of_problems(error.problems, workspace)
    else:
        lines = [annotation("kvparity", words, None, 0)]
    _print(lines)


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _unfinished(args: argparse.Namespace, words: str) -> None:
    if args.junit is not None:
        from kvparity.report.junit import unfinished

        replaceable.write("--junit", args.junit, unfinished(str(args.contract), words))
    if args.badge is not None:
        from kvparity.report.badge import badge

        replaceable.write("--badge", args.badge, badge(str(args.contract), "error"))


def _all(args: argparse.Namespace, report: RunReport, loaded: LoadedContract) -> bool:
    def junit() -> None:
        from kvparity.report.junit import junit

        replaceable.write("--junit", args.junit, junit(report, loaded))

    def badge() -> None:
        from kvparity.report.badge import badge

        replaceable.write("--badge", args.badge, badge(report.contract.name, report.verdict))

    asked = [(args.junit, junit), (args.badge, badge)]
    written = [_said(write) for path, write in asked if path is not None]
    if (workspace := _github()) is not None:
        from kvparity.report.github import of_report

        _print(of_report(report, loaded, workspace))
        _said(lambda: _summary(report))
    return all(written)


def _said(write: Callable[[], None]) -> bool:
    try:
        write()
    except stop.StopError as error:
        say.tell(f"kvparity: {error}", file=sys.stderr)
        return False
    return True


def _github() -> Path | None:
    """The folder of the checkout, where GitHub Actions runs this."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return None
    return Path(os.environ.get("GITHUB_WORKSPACE") or ".")


def _summary(report: RunReport) -> None:
    """Append to the summary of the job, which other commands of the step may have begun."""
    from kvparity.report.summary import LARGEST, summary

    if not (name := os.environ.get("GITHUB_STEP_SUMMARY")):
        return
    with stop.ends(OSError, ValueError, words="the job summary is not written: "):
        path = Path(name)
        begun = path.stat().st_size if path.exists() else 0
        with path.open("a", encoding="utf-8") as file:
            file.write(summary(report, LARGEST - begun))

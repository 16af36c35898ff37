"""Where a case of a run parts, from Python; the verb ``locate`` calls it, too."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from kvparity.api.borrowed import borrowed
from kvparity.api.reports import Report
from kvparity.core.errors import UnsupportedError
from kvparity.report.recorded import RecordedCase
from kvparity.report.run_dir import Evidence
from kvparity.run.device import default, settle
from kvparity.run.kept import as_in, contract_of
from kvparity.run.locate import RELATION, Located
from kvparity.run.locate import locate as run
from kvparity.run.options import seconds


def locate(
    report: Report | str | Path,
    case: str | None = None,
    *,
    device: str | None = None,
    current: bool = False,
    budget: float | None = None,
) -> Located:
    """Run both sides of a case again, on the tokens of the run, and find where they diverge.

    The subject is loaded in the calling process. Nothing is written.

    Args:
        report: what ``verify`` returned, or the folder of a run.
        case: the case's id, such as ``c007``; left out, the first of invariance that differs.
        device: ``cpu`` or ``cuda``; left out, what ``KVPARITY_DEVICE`` says, else CUDA where there
            is one.
        current: run the subject's files as they are now, not as the run kept them.
        budget: seconds behind which no more births are looked for; what those that were found
            explain is told. Left out: without a limit.

    Raises:
        RunFolderError: the folder holds no run, or the run no such case.
        UnsupportedError: no two paths of the case can be compared, or nobody but the caller has
            the functions.
        SubjectError: the subject failed.
        ValueError: the device is not there, or the budget means nothing.
    """
    if budget is not None:
        seconds("budget", budget)
    until = math.inf if budget is None else time.monotonic() + budget
    if isinstance(report, Report) and not report.again:
        raise UnsupportedError(
            "the functions of this report are the calling process's alone and are not loaded "
            'again; give them by name ("kernels.py:prefill")'
        )
    folder = report.run_dir if isinstance(report, Report) else Path(report)
    asked = settle(device if device is not None else default())
    loaded = contract_of(folder)
    wanted = case if case is not None else _first(folder)
    with borrowed(), as_in(folder, loaded, current=current) as since:
        return replace(run(loaded, folder, wanted, asked, until=until), since=since)


def _first(folder: Path) -> str:
    for _, line in Evidence(folder).read(RecordedCase):
        document = line.document()
        if (document["relation"], document["verdict"]) == (RELATION, "differs"):
            return str(document["id"])
    raise UnsupportedError(f"no two paths of {folder} differ in bits, and only that can be located")

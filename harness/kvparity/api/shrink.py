"""A case of a run made smaller, from Python; the verb ``shrink`` does the same."""

from __future__ import annotations

from pathlib import Path

from kvparity.api.borrowed import borrowed
from kvparity.run.device import default, settle
from kvparity.run.kept import contract_of
from kvparity.run.options import SHRINK_S, seconds
from kvparity.run.shrink import ShrinkProgress, Shrunk
from kvparity.run.shrink import shrink as run


def shrink(
    run_dir: str | Path,
    case: str,
    *,
    device: str | None = None,
    budget: float = SHRINK_S,
    progress: ShrinkProgress | None = None,
) -> Shrunk:
    """Find the smallest case that fails as a case of a run does.

    Args:
        run_dir: the folder of a run, such as ``report.folder``.
        case: the id of a case that differs, such as ``c007``.
        device: ``cpu`` or ``cuda``; left out, what ``KVPARITY_DEVICE`` says, else CUDA where there
            is one.
        budget: seconds to search; a case that runs then is finished. The same call goes on there.
        progress: called with (cases tried, the smallest that fails, in words).

    Raises:
        ValueError: an argument is wrong, or the device is not there.
        RunFolderError: the run has no such case, it does not differ, or its contract changed.
        UnsupportedError, SubjectError: see there; what was tried is on disk.
    """
    seconds("budget", budget)
    asked, folder = settle(str(device) if device is not None else default()), Path(run_dir)
    with borrowed():
        return run(
            contract_of(folder), folder, case, asked, budget=budget,
            progress=progress or _silent,
        )  # fmt: skip


def _silent(tried: int, words: str) -> None:
    """Nothing is shown."""

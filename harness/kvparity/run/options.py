"""What a run is asked for, before torch is imported: numbers that mean something, and a folder."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from kvparity.core.errors import RunFolderError

MOST_JOBS = 1024
AUTO = "auto"
"""As many processes as fit, as a command line has it."""
LONGEST_S = 10_000_000
BUDGET_S = 20.0
"""Seconds that ``verify`` spends on where cases that differ part, where nothing else is asked."""
SHRINK_S = 300.0
"""Seconds that ``shrink`` searches, where nothing else is asked."""
NODE = "KVPARITY_NODE"
"""The variable that names the node, where its host's name does not."""
RUNS = Path(".kvparity/runs")


def sound(jobs: int | None, timeout: float) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ValueError: which, and what was expected.
    """
    if jobs is not None and not 1 <= jobs <= MOST_JOBS:
        raise ValueError(f"jobs {jobs}: expected at least 1, at most {MOST_JOBS}")
    seconds("timeout", timeout)


def seconds(name: str, value: float) -> None:
    """Refuse a time that means nothing.

    Raises:
        ValueError: see there.
    """
    expected = f"expected seconds, more than 0, at most {LONGEST_S}"
    if not isinstance(value, int | float):
        raise ValueError(f"{name} {value!r}: {expected}")
    if not 0 < value <= LONGEST_S:
        raise ValueError(f"{name} {value:g}: {expected}")


def new_folder(name: str) -> Path:
    """A folder that was not there: of runs that begin in one second, each gets its own.

    Raises:
        RunFolderError: it cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        RUNS.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = RUNS / (f"{stamp}-{name}" + (f"-{number}" if number > 1 else ""))
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        words = f"{RUNS} cannot be written ({error.strerror}); give a run folder (--run-dir)"
        raise RunFolderError(words) from error
    raise AssertionError("unreachable: numbers do not end")

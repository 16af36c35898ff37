"""One cell: ``kvparity verify`` in a process of its own, by the cell's interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity.core.exit_codes import ExitCode
from kvparity.core.parent_watch import die_with
from kvparity.sweeps.installed import Installed, installed
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.store import SweepStore

_GRACE_S = 60.0
"""For a verification to keep what it finished, once it is interrupted."""


@dataclass(frozen=True)
class CellSettings:
    """What every verification of a sweep is given. ``jobs``: None leaves it to ``verify``."""

    jobs: int | None
    timeout: float


@dataclass(frozen=True)
class CellEnd:
    """How a process ended; ``code`` None: its time was up. ``said``: its last words.

    ``installed``: what its environment has, asked where it left no report.
    """

    code: int | None
    said: str
    installed: Installed | None = None

    @property
    def told(self) -> bool:
        """Whether it ended by itself, in whatever way."""
        return self.code is not None and self.code >= 0 and self.code != ExitCode.INTERRUPTED


def command(
    python: str, planned: PlannedCell, store: SweepStore, settings: CellSettings
) -> list[str]:
    """The command line of a cell. An interrupted run is finished."""
    folder = store.run(planned.id)
    found = [python, "-m", "kvparity", "verify", str(store.contract(planned.id))]
    found += ["--device", planned.cell.device, "--run-dir", str(folder), "--no-locate"]
    found += ["--timeout", f"{settings.timeout:g}"]
    found += [] if settings.jobs is None else ["--jobs", str(settings.jobs)]
    return found + (["--resume"] if (folder / "identity.json").is_file() else [])


def run_cell(
    planned: PlannedCell, store: SweepStore, settings: CellSettings, seconds: float | None
) -> CellEnd:
    """Verify a cell; after ``seconds`` it is interrupted, and what it finished is kept.

    The process ends with this one, however that ends.
    """
    store.contract(planned.id).write_bytes(planned.given.raw)
    python = sys.executable if planned.python is None else str(planned.python)
    log = store.log(planned.id)
    parent = os.getpid()
    with log.open("wb") as out:
        try:
            process = subprocess.Popen(
                command(python, planned, store, settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: die_with(parent),
            )
        except OSError as error:
            why = f"{python} does not run ({error.strerror})"
            return CellEnd(126, why, Installed({}, f"does not run ({error.strerror})"))
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _ended(process)
    end = CellEnd(code, last_words(log))
    if not end.told or (store.run(planned.id) / "run.json").is_file():
        return end
    names = tuple(planned.environment.packages)
    return replace(end, installed=installed(python, names))


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process that still runs, and wait for it."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_words(log: Path) -> str:
    """The last line that says something."""
    text = log.read_bytes()[-4000:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

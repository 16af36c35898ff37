"""One run of pytest, whatever number of processes it has: its device and its run folders."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from kvparity.run.options import RUNS

_KEY = "kvparity"


@dataclass(frozen=True)
class RunSession:
    """``stamp``: what the names of run folders begin with. ``shared``: a folder that all processes
    of this run of pytest have; ``owner``: whether this one made it."""

    device: str | None
    base: Path
    stamp: str
    shared: Path
    owner: bool

    def folder(self, name: str) -> Path:
        """The run folder of that name."""
        return self.base / f"{self.stamp}-{name}"

    @contextmanager
    def alone(self, name: str) -> Iterator[Path]:
        """A file that only one process has at a time: what was found out stands there."""
        file = self.shared / name
        with file.open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield file

    def close(self) -> None:
        """Remove the shared folder. Run folders stay."""
        if self.owner:
            shutil.rmtree(self.shared, ignore_errors=True)


def opened(config: pytest.Config) -> RunSession:
    """The session of this process, or the one that started it."""
    given = cast("dict[str, list[str]]", getattr(config, "workerinput", {})).get(_KEY)
    if given is None:
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        shared = tempfile.mkdtemp(prefix="kvparity-")
    else:
        stamp, shared = given
    base = config.invocation_params.dir / (config.getoption("kvparity_run_dir") or RUNS)
    device: str | None = config.getoption("kvparity_device")
    return RunSession(device, base, stamp, Path(shared), given is None)


def passed_on(session: RunSession, worker: dict[str, object]) -> None:
    """Tell a process of pytest-xdist, which takes plain values."""
    worker[_KEY] = [session.stamp, str(session.shared)]

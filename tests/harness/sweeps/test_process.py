"""The process of a cell: what it is given, how it ends, and what its interpreter lacks."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import sweep_rows
from pydantic import TypeAdapter
from sweep_rows import report, row

import kvparity
from kvparity.core.versions import versions
from kvparity.run.on_ray.sent import SentPart
from kvparity.sweeps import on_node, process
from kvparity.sweeps.carry_out import LeftCell, SweptCell, settled
from kvparity.sweeps.history import history
from kvparity.sweeps.installed import installed
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.process import CellEnd, CellSettings, command
from kvparity.sweeps.reading import rows_in
from kvparity.sweeps.store import SweepStore

SETTINGS = CellSettings(None, 60.0)


def test_the_command_of_a_cell(cells: tuple[PlannedCell, ...], store: SweepStore) -> None:
    given = command("there/python", cells[0], store, CellSettings(2, 9.0))
    assert given[:4] == ["there/python", "-m", "kvparity", "verify"]
    assert given[given.index("--device") + 1] == "cpu"
    assert given[given.index("--jobs") + 1] == "2"
    assert "--resume" not in given
    folder = store.run(cells[0].id)
    folder.mkdir()
    (folder / "identity.json").touch()
    assert command("there/python", cells[0], store, SETTINGS)[-1] == "--resume"


SLEEPER = """\
#!{python}
import sys, time
print("began", flush=True)
time.sleep(600)
"""


def _sleeping(tmp_path: Path, cell: PlannedCell) -> PlannedCell:
    file = tmp_path / "python"
    file.write_text(SLEEPER.format(python=sys.executable))
    file.chmod(0o755)
    return replace(cell, python=file)


def test_a_process_whose_time_is_up_is_stopped(
    cells: tuple[PlannedCell, ...], store: SweepStore, tmp_path: Path
) -> None:
    began = time.monotonic()
    found = process.run_cell(_sleeping(tmp_path, cells[0]), store, SETTINGS, 0.3)
    assert found.code is None
    assert time.monotonic() - began < 20
    assert json.loads(store.contract(cells[0].id).read_text())["numerics"]["execution"] == "float32"


def test_a_killed_sweep_leaves_no_verification_behind(
    cells: tuple[PlannedCell, ...], store: SweepStore, tmp_path: Path
) -> None:
    sleeping = _sleeping(tmp_path, cells[0])
    child = os.fork()
    if child == 0:
        try:
            process.run_cell(sleeping, store, SETTINGS, None)
        finally:
            os._exit(1)
    log = store.log(sleeping.id)
    while not (log.exists() and b"began" in log.read_bytes()):
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-P", str(child)], capture_output=True, text=True, check=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    verification = Path(f"/proc/{found.stdout.strip()}/cmdline")
    for _ in range(500):
        if not verification.exists() or b"verify" not in verification.read_bytes():
            return
        time.sleep(0.01)
    raise AssertionError("it still runs")


HARNESS = Path(kvparity.__file__).parents[1]
BARE = f"exec {sys.executable} -S"
"""Without the packages of this environment."""
LACKING = {
    "nothing": (f'{BARE} -I "$@"', "has no kvparity and has no torch"),
    "no torch": (f'PYTHONPATH={HARNESS} {BARE} "$@"', "has no torch"),
    "a broken torch": (
        f'PYTHONPATH=$(dirname $0)/broken:{HARNESS} {BARE} "$@"',
        "cannot import torch (ImportError: libcudart.so.13: no such file)",
    ),
    "no Python": ("exit 7", "does not say what is installed (exit code 7)"),
    "no program": (None, "does not run (Permission denied)"),
}


@pytest.mark.parametrize("name", LACKING)
def test_an_environment_that_can_verify_nothing_is_no_bad_version(
    name: str, cells: tuple[PlannedCell, ...], store: SweepStore, tmp_path: Path
) -> None:
    script, words = LACKING[name]
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o644 if script is None else 0o755)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/torch.py").write_text("raise ImportError('libcudart.so.13: no such file')")
    cell = replace(cells[0], python=python)
    end = process.run_cell(cell, store, SETTINGS, None)
    assert on_node.ended(SentPart(answers=((0, _as_json(end)),))) == end, "the same by Ray"
    found = settled(cell, store, end)
    assert isinstance(found, LeftCell)
    assert found.why.startswith(f"not measured: its interpreter {words} (installed: ")
    assert not store.ended(cell.id), "it is run again"
    (noted,) = rows_in(store.folder)
    assert (noted.verdict, noted.measured, noted.reason) == ("void", False, found.why)
    there = kvparity.__version__ if "torch" in name else None
    assert (noted.kvparity, noted.torch) == (there, None)
    assert noted.transformers is None, "what is installed, not what was asked for"
    good = [row("5.22.0", claim=each, contract=cell.name) for each in ("a", "b")]
    assert history([*good, noted]).turns == ()
    mended = sweep_rows.ended(cell, store, report(cell), 0)
    assert isinstance(settled(cell, store, mended), SweptCell)
    assert [each.verdict for each in rows_in(store.folder)] == ["holds"]


def _as_json(end: CellEnd) -> Any:
    return json.loads(TypeAdapter(CellEnd).dump_json(end))


def test_what_is_installed_is_asked_of_the_interpreter() -> None:
    found = installed(sys.executable, ("pydantic", "python", "no-such-package"))
    assert found.lacks is None
    assert found.packages == versions() | {
        "pydantic": metadata.version("pydantic"),
        "python": platform.python_version(),
        "no-such-package": None,
    }

"""A control is one row and the function of its name that plants it, as CONTRIBUTING says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROW = """
    decodes(
        "two-positions-ahead",
        "decoded tokens are told the position two after their own",
        "example/engine#1",
        subjects=LANGUAGE,
    ),"""
PLANT = """
two_positions_ahead = each_session(lambda s: Shifted(s, lambda span: 2 * span.decode))
"""
RUN = """
import toy
from kvparity.plan.cases import make
from kvparity.run.unit import run_unit

setting = toy.setting()
work = make(setting.contract)
(run,) = (each for each in work.controls if each.control == "two-positions-ahead")
(unit,) = (each for each in work.units if each.workload == run.workload)
found = run_unit(setting, unit, tokens=None, done=frozenset(), emit=lambda *_: None)
print(toy.run_control(setting, run, found.tokens))
named = toy.contract(controls=["two-positions-ahead"])
print([each.control for each in make(named).controls])
"""


def after(file: Path, line: str, text: str) -> None:
    """Put text behind the one line of a file."""
    whole = file.read_text()
    assert whole.count(line) == 1
    file.write_text(whole.replace(line, line + text))


@pytest.mark.slow
def test_a_new_control_is_planned_planted_and_caught(tmp_path: Path) -> None:
    for package in ("contracts/kvparity_contracts", "harness/kvparity"):
        left = shutil.ignore_patterns("__pycache__", "labs", "bench")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=left)
    after(tmp_path / "contracts/kvparity_contracts/controls/places.py", "PLACES = (", ROW)
    rope = tmp_path / "harness/kvparity/controls/rope.py"
    rope.write_text(rope.read_text() + PLANT)
    folders = (
        tmp_path / "contracts",
        tmp_path / "harness",
        ROOT / "kernels",
        ROOT / "tests/harness",
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, "-B", "-c", RUN], env=environment, cwd=tmp_path, text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    caught, named = done.stdout.splitlines()
    assert caught.startswith("(True, 'bits differ")
    assert named == "['two-positions-ahead']"

"""Runs on three local nodes of Ray: the bits of this machine, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_node_and_a_driver_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "kills.json"
    paths = [str(ROOT / name) for name in ("ci", "harness", "kernels", "contracts")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "ci/kill_ray.py"), "--kills", "1", "--out", str(file)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *map(str, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["equal to the run without Ray"]
    assert "1 CPU and 1 GPU" in found["a GPU that no node has"]
    assert found["node kills that took work with them"] == 1
    for each in (*found["node kills"], *found["driver kills"]):
        assert each["kept"]
        assert each["equal"]

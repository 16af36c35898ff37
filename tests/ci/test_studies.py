"""Studies run as their pages say: ``python ci/studies/NAME.py``, with nothing else on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = (
    "bench_drift",
    "cluster_simulation",
    "bench_transformers_overhead",
    "drift_causes",
    "located_defects",
    "shrunk_defects",
    "located_model",
    "bench_ray",
)
"""Those that import a neighbour or the tests' own scripts."""


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_starts_as_its_page_says(name: str) -> None:
    rooms = [str(ROOT / each) for each in ("harness", "kernels", "contracts")]  # as if installed
    own = os.environ | {"PYTHONPATH": os.pathsep.join(rooms)}
    command = [sys.executable, f"ci/studies/{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")

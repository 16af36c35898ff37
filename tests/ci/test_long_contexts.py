"""The memory of a long context: what nobody reads is not held; a control that holds it is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEYS = 4096
ALL_SCORES = KEYS * KEYS * 4 * 2 / 2**20
"""MiB of the scores of two heads, of which eager attention holds several copies."""


def peak(*, whole: bool) -> int:
    """MiB at the peak of a transformers model with eager attention, of the process alone."""
    program = ROOT / "ci/studies/long_contexts.py"
    rooms = [str(ROOT / each) for each in ("harness", "kernels", "contracts")]
    own = os.environ | {"PYTHONPATH": os.pathsep.join(rooms), "TRITON_INTERPRET": "1"}
    point = ["--point", "eager", str(KEYS), "1", str(int(whole))]
    command = [sys.executable, str(program), *point]
    done = subprocess.run(command, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["of"] is None) is whole
    return int(found["peak_mib"])


@pytest.mark.slow
def test_chosen_rows_hold_no_square_of_keys() -> None:
    chosen, everything = peak(whole=False), peak(whole=True)
    assert everything - chosen > ALL_SCORES  # the control: all rows at once are seen
    few = peak_of_imports()
    assert chosen - few < ALL_SCORES


def peak_of_imports() -> int:
    """MiB at the peak of a process that imports torch and transformers, and runs nothing."""
    code = (
        "import torch, triton, transformers.models.qwen3.modeling_qwen3;"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) // 1024

"""The guards that only a compiler sees, checked on code compiled for GPUs that need not be here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CAPABILITIES = ["80", "90", "100"]
KERNELS = {"attention.prefill", "attention.decode_split", "attention.decode_combine"}
Facts = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": str(HERE.parents[1] / "kernels"),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_attention.py"), *CAPABILITIES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: Facts = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_attention_compiles(compiled: Facts, capability: str) -> None:
    assert set(compiled[capability]) == KERNELS
    for facts in compiled[capability].values():
        assert facts["wide_loads"] > 0  # though strides are not specialised
        assert facts["atomics"] == facts["tf32"] == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_nothing_is_left_to_contract(compiled: Facts, capability: str) -> None:
    for facts in compiled[capability].values():
        assert facts["contractable"] == 0
        assert facts["rounded"] > 0
        assert facts["fma"] > 0  # those that the source asks for
    # The control: with contraction allowed, the same kernel leaves it to the assembler.
    loose = compiled["contraction"]["attention.decode_combine"]
    assert loose["contractable"] > 0
    assert loose["rounded"] == 0


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_division_is_exact(compiled: Facts, capability: str) -> None:
    for name, facts in compiled[capability].items():
        assert facts["loose_division"] == 0
        assert (facts["exact_division"] > 0) == (name != "attention.decode_split")


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_prefill_and_decode_use_the_same_matrix_instructions(
    compiled: Facts, capability: str
) -> None:
    # Needed for equal bits on a GPU, not sufficient: only a run there shows that.
    kernels = compiled[capability]
    assert kernels["attention.prefill"]["mma"] == kernels["attention.decode_split"]["mma"] != []
    assert kernels["attention.decode_combine"]["mma"] == []

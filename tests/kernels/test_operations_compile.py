"""The operations compile for GPUs that this machine need not have, and into what."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CAPABILITIES = ["80", "90", "100"]
Facts = dict[str, dict[str, dict[str, list[str]]]]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": str(HERE.parents[1] / "kernels"),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_operations.py"), *CAPABILITIES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: Any = json.loads(done.stdout)
    return result


def test_all_operations_compile_everywhere(compiled: Facts) -> None:
    operations = {name.split()[0].rstrip(",") for name in compiled}
    assert operations == {
        *("linear", "norm", "tables", "rotate", "swiglu", "embed", "logprob", "digest"),
        *("matmul", "row_sum", "softmax"),
    }
    for name, by_capability in compiled.items():
        assert list(by_capability) == (CAPABILITIES[:1] if "contracted" in name else CAPABILITIES)


def test_nothing_is_added_by_atomics(compiled: Facts) -> None:
    assert not [n for n, by in compiled.items() for facts in by.values() if facts["atomics"]]


def test_the_atomics_pattern_sees_atomics() -> None:
    source = (HERE / "compile_operations.py").read_text()
    found = re.search(r'"atomics": r"(.*)"', source)
    assert found is not None
    for line in (
        "atom.global.gpu.acq_rel.add.f32 %f1, [%rd1], %f2;",
        "red.global.add.f32 [%r], %f;",
    ):
        assert re.search(found[1], line)


@pytest.mark.parametrize("name", ["linear", "matmul"])
def test_products_take_the_matrix_instruction_of_their_gpu(compiled: Facts, name: str) -> None:
    for capability, kind in zip(CAPABILITIES, ("mma.sync", "wgmma", "tcgen05"), strict=True):
        (instruction,) = {i.split(".row")[0] for i in compiled[f"{name} bf16"][capability]["mma"]}
        assert instruction.startswith(kind)
        facts = compiled[f"{name} fp32"][capability]
        assert facts["mma"] == []  # float32 means float32: no TF32
        assert facts["tf32"] == []
        assert facts["fma"] == ["fma.rn.f32"]


def test_products_and_sums_are_not_contracted(compiled: Facts) -> None:
    added = ("matmul bf16", "row_sum", "softmax", "softmax, logarithm")
    for name in ("rotate", "norm", "swiglu", "tables", "logprob", "linear bf16", *added):
        for facts in compiled[name].values():
            assert facts["loose"] == []
    for facts in compiled["rotate"].values():
        assert facts["fma"] == []
    assert compiled["rotate, contracted"][CAPABILITIES[0]]["loose"] != []  # control

"""The one list of kernels: what it holds, and that ci/gpu compiles it without a device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from gpu_steps import compile as compiling
from gpu_steps import kernels
from gpu_steps.steps import STEPS
from small_steps import contract

from kvparity.cli.main import main
from kvparity.core.isolation.inside import here
from kvparity_contracts import load
from kvparity_kernels import launch as launcher

ROOT = Path(__file__).parents[2]
BY_NAME = {step.name: step for step in STEPS}
OF_DEVICES = {
    "attention.prefill": {"PIECE"},
    "attention.decode_split": {"PIECE"},
    "attention.decode_combine": {"GB", "CB", "FLIGHT", "num_warps"},
}
"""Cuts that decide no bit, and are others on a device than in the interpreter."""
OTHERS = {"overrides.matmul", "overrides.row_sum", "overrides.softmax"}
"""Kernels of ``invariant()``, which no step of ci/gpu asks for."""


@pytest.fixture
def compiled_mode(monkeypatch):
    """As in the process that compiles, where kernels are no longer interpreted."""
    monkeypatch.setattr(launcher, "MODE", "compiled")


@pytest.fixture(scope="module")
def listed():
    """What each step launches on one architecture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "MODE", "compiled")
        return {step.name: kernels.of_step(step, "sm_90") for step in STEPS}


def test_each_step_is_listed_or_says_why_not(listed):
    assert {name for name, found in listed.items() if not found} == set(kernels.ELSEWHERE)
    assert all(kernels.ELSEWHERE.values())


def test_every_kernel_of_this_project_is_in_the_list(listed):
    package = Path(launcher.__file__).parent
    modules = [
        import_module(f"kvparity_kernels.{path.parent.name}.kernels")
        for path in package.glob("*/kernels.py")
    ]
    declared = {
        each.name
        for module in modules
        for each in vars(module).values()
        if isinstance(each, launcher.Kernel)
    }
    names = {launch.kernel.name for found in listed.values() for launch in found}
    assert names == declared - OTHERS
    assert len(names) >= 12


def test_every_split_and_a_whole_step_of_the_bench_is_listed(listed):
    splits, others, step = 6 * 2, 5, 9  # what splits and what merges; the rest, and of a layer
    assert len(listed["bench"]) == splits + others + step


def test_a_form_is_listed_once(listed):
    assert len({each.form for each in listed["bench"]}) == len(listed["bench"])


@pytest.mark.slow
def test_the_list_of_a_contract_is_what_its_run_launches(tmp_path, compiled_mode, monkeypatch):
    """The same contract run for real, on the CPU with every kernel interpreted."""
    file = Path(contract("sliding-window", tmp_path))
    file.write_text(file.read_text().replace("cpu_ops: twin", "cpu_ops: interpreter"))
    recorded = [
        (launch.kernel.name, set(launch.form[1:]))
        for launch in kernels.of_contract(load(file).contract, tmp_path, "sm_90")
    ]
    monkeypatch.undo()
    run = tmp_path / "run"
    with here():
        assert (
            main(["verify", str(file), "--device", "cpu", "--jobs", "1", "--run-dir", str(run)])
            == 0
        )
    launched = [
        (name.split(" ")[0], facts)
        for line in (run / "units.jsonl").read_text().splitlines()
        for path in json.loads(line)["launches"].values()
        for name, facts in path["kernels"].items()
    ]
    assert len({name for name, _ in launched}) >= 8
    for name, facts in launched:
        wanted = {f"{key}={value}" for key, value in facts["constexprs"].items()}
        wanted |= {f"{key}=torch.{value}" for key, value in facts["dtypes"].items()}
        wanted |= {f"{key}={facts[key]}" for key in ("num_warps", "num_stages")}
        wanted = {w for w in wanted if w.split("=")[0] not in OF_DEVICES.get(name, ())}
        near = [sorted(wanted - form) for known, form in recorded if known == name]
        assert [] in near, (name, min(near, key=len, default=None))


@pytest.mark.compile
def test_a_dry_run_lists_the_steps_and_compiles_what_they_launch(tmp_path):
    names = ("compile", "bits-sdpa", "order-flashinfer")
    done = subprocess.run(
        [str(ROOT / "ci" / "gpu"), "--dry-run", "--arch", "sm_90", "--only", *names],
        env=os.environ | {"KVPARITY_PYTHON": sys.executable, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in names)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["verdict"] == "compiled"
    assert found["distinct_by_step"] == {"compile": 0, "bits-sdpa": 1, "order-flashinfer": 0}
    assert found["kernels"] == {"sm_90": 1}
    assert len(list(tmp_path.rglob("*.cubin"))) == 1


def test_a_kernel_that_does_not_compile_is_told(compiled_mode, monkeypatch):
    def refuse(launch, arch):
        raise ValueError(f"no {arch} here")

    monkeypatch.setattr(compiling, "compile_launch", refuse)
    found = compiling.compiled([BY_NAME["bits-sdpa"]], ["sm_90"], 1)
    assert found["verdict"] == "error"
    (error,) = found["errors"]
    assert error.startswith("digest.row_digest, ")
    assert error.endswith(" for sm_90: ValueError: no sm_90 here")

"""What the steps of ci/gpu launch is found by running them, and what is not found is an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvparity.cli.main import main
from kvparity.core.isolation.inside import here

ROOT = Path(__file__).parents[2]
CONTRACT = """
version: 1
name: covered
subject:
  kind: decoder
  cpu_ops: interpreter
  order: {split: 32, tile: 16, block_m: 16}
  config: {vocab_size: 256, hidden_size: 32, intermediate_size: 48, layers: 2, heads: 2,
           kv_heads: 1, head_dim: 16, max_positions: 64, sliding_window: 9,
           layer_types: [sliding, full]}
numerics: {execution: float32, kv_cache: [float32, fp8_e4m3(head)], tf32: false}
workloads: [{name: few, prompt_tokens: [11], generate: 2}]
checks:
  - {name: bits, relation: invariance, reference: prefill, paths: [decode, paged(4)]}
controls: [narrow-cache]
"""
OF_DEVICES = {
    "prefill": {"PIECE"},
    "decode_split": {"PIECE"},
    "decode_combine": {"GB", "CB", "FLIGHT", "num_warps"},
}
"""Cuts that decide no bit, and are others on a device than in the interpreter."""
PROGRAM = """
import json, sys
from dataclasses import replace
import gpu_rehearse, gpu_coverage
from gpu_coverage import OTHERS, left_out, problems, recorded
from gpu_steps import STEPS, Step, _kvparity, _verify, read_verdict
doctor = STEPS[0]
steps = [
    doctor,
    _verify("own", sys.argv[1], "?"),
    Step("new", "?", (sys.executable, "-c", "pass"), read_verdict, frozenset({"holds"})),
    Step("idle", "?", _kvparity("contract", "lint", "smoke"), read_verdict, frozenset()),
    _verify("broken", "no-such-contract", "?"),
    replace(doctor, name="other", needs="no_such_module_of_ours"),
]
found = recorded(steps, (9, 0), 2)
gpu_coverage.LIMIT_S = 0.1
slow = recorded([replace(STEPS[3], name="slow")], (9, 0), 1)["slow"]
forms = found["doctor"].forms
one = min(forms, key=str)
print(json.dumps({
    "problems": problems(steps, found),
    "slow": slow.problem,
    "absent": found["other"].absent,
    "own": [[form.name, [[k, str(v)] for k, v in form.values]] for form in found["own"].forms],
    "doctor": [left_out({"doctor": found["doctor"]}, frozenset(some))
               for some in (forms, forms - {one})],
    "one": str(one),
    "names": [step.name for step in STEPS],
    "others": sorted(OTHERS),
}))
"""


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    file = tmp_path_factory.mktemp("covered") / "covered.yaml"
    file.write_text(CONTRACT)
    return file


@pytest.fixture(scope="module")
def found(contract):
    path = [str(ROOT / name) for name in ("harness", "kernels", "contracts", "ci")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(contract)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_recorded_is_what_the_interpreter_launches(contract, found):
    """The same contract run for real, on the CPU with every kernel interpreted."""
    run = contract.parent / "run"
    command = ["verify", str(contract), "--device", "cpu", "--jobs", "1", "--run-dir", str(run)]
    with here():
        assert main(command) == 0
    launched = [
        (name.split(" ")[0].split(".")[1], facts)
        for line in (run / "units.jsonl").read_text().splitlines()
        for path in json.loads(line)["launches"].values()
        for name, facts in path["kernels"].items()
    ]
    assert len({name for name, _ in launched}) >= 8
    recorded = [(name, dict(values)) for name, values in found["own"]]
    for name, facts in launched:
        wanted = {key: str(value) for key, value in facts["constexprs"].items()}
        wanted |= {key: f"torch.{value}" for key, value in facts["dtypes"].items()}
        wanted |= {key: str(facts[key]) for key in ("num_warps", "num_stages")}
        wanted = {k: v for k, v in wanted.items() if k not in OF_DEVICES.get(name, ())}
        near = [sorted(wanted.items() - f.items()) for n, f in recorded if n == name]
        assert [] in near, (name, min(near, key=len, default=None))
    # The control: a form that is not recorded is missed.
    name, facts = launched[0]
    gone = [(n, f) for n, f in recorded if n != name]
    assert not any(name == n for n, _ in gone)


def test_a_step_that_is_not_covered_is_an_error(found):
    assert [line.split(":")[0] for line in found["problems"]] == ["new", "idle", "broken"]
    assert "not known here" in found["problems"][0]
    assert "launched no kernel" in found["problems"][1]
    assert "no-such-contract" in found["problems"][2]


def test_a_step_that_does_not_end_is_stopped_and_told(found):
    assert found["slow"] == "it takes longer than 0.1 s"


def test_a_kernel_that_is_left_out_is_seen(found):
    assert found["doctor"] == [{}, {"doctor": [found["one"]]}]


def test_a_library_that_is_not_here_leaves_its_step_out(found):
    assert found["absent"] == "no_such_module_of_ours is not importable here"


def test_what_is_said_to_launch_nothing_is_a_step(found):
    assert set(found["others"]) < set(found["names"])

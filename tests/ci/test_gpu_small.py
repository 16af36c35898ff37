"""Every step of ci/gpu that can also runs at its smallest size on a CPU, and is judged there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gpu_steps.record import StepOutcome
from gpu_steps.step import judge
from gpu_steps.steps import STEPS
from small_steps import CANNOT, contract, small

from kvparity.cli.main import main
from kvparity.core.isolation.inside import here

PROGRAMS = {"compile": "test_gpu_kernels.py", "products": "test_gpu_products.py"}
"""Steps that are no verb of kvparity, and where they run on a CPU."""
HERE = [step for step in STEPS if step.name not in (*CANNOT, *PROGRAMS)]
BY_NAME = {step.name: step for step in STEPS}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where the audit's own tests keep what they compile."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return os.environ.get("KVPARITY_TESTS_COMPILED") or str(shared / "audit")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch, compiled):
    """Run a step's command here: what ci/gpu would record of it."""
    monkeypatch.setenv("KVPARITY_AUDIT_CACHE", compiled)

    def run(step, words):
        with here():
            code = main(words)
        text, said = capsys.readouterr()
        begun = StepOutcome(step=step.name, asks=step.asks, state="error", rc=code)
        return judge(step, begun, text, said, tmp_path)

    return run


def marked(step):
    marks = [pytest.mark.slow]
    marks += [pytest.mark.compile] if step.name.startswith("audit") else []
    return pytest.param(step, id=step.name, marks=marks)


@pytest.mark.parametrize("step", [marked(step) for step in HERE])
def test_a_step_has_its_answer_on_a_cpu(step, run, tmp_path):
    outcome, document = run(step, small(step, tmp_path))
    assert outcome.state == "ok", outcome.reason
    assert document


def test_every_step_runs_here_or_says_why_it_cannot():
    ran = {step.name for step in HERE} | set(PROGRAMS)
    for step, file in PROGRAMS.items():
        assert f"gpu_steps import {step}" in (Path(__file__).parent / file).read_text()
    assert ran | set(CANNOT) == set(BY_NAME)
    assert ran & set(CANNOT) == set()
    assert all(CANNOT.values())


@pytest.mark.parametrize("name", [each for each in CANNOT if each.startswith("order-sdpa")])
def test_a_backend_that_no_cpu_has_is_told(name, run, tmp_path):
    outcome, _ = run(BY_NAME[name], small(BY_NAME[name], tmp_path))
    assert outcome.state == "unavailable"


def test_a_step_that_shows_nothing_is_a_failure(run, tmp_path):
    """The control: a check without a planted defect that it catches is void."""
    step = BY_NAME["verify-attention"]
    words = small(step, tmp_path)
    words[1] = contract(step.command[4], tmp_path, planted=["invariance"])
    outcome, document = run(step, words)
    assert (outcome.state, document["verdict"]) == ("failed", "void")

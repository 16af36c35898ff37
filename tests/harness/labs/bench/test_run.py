"""The command from case to document, with a stand-in for the device and its clock."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from kvparity.cli.main import main
from kvparity.core import environment
from kvparity.core.exit_codes import ExitCode
from kvparity.labs.bench import cases as sizes
from kvparity.labs.bench import timing
from kvparity.labs.bench import ways as making
from kvparity.labs.bench.cases import ModelShape
from kvparity.labs.bench.goals import GOALS
from kvparity.labs.bench.timing import Ready, Time
from kvparity_kernels.tiles import candidates

TINY = ModelShape(4, 2, 16, 32, 64, 100, dtype="bfloat16", layers=2, qk_norm=True)


@pytest.fixture
def device(monkeypatch):
    """Tiny cases on the CPU where CUDA is asked for; what ran is noted."""
    seen = []

    class Clock:
        def __init__(self, run):
            self.run = run

        def prepare(self, calls, count):
            return Ready(calls[0], calls[0]())

        def times(self, replays, calls):
            return {name: Time(1.0, 1.0, 1.0, self.run) for name in replays}

    def small(shape, wanted, *, free):
        assert free == 1 << 30
        assert shape.dtype == "bfloat16"
        if "linear" in wanted:
            yield sizes.linear(TINY, 3, 32, 48)
        if "step" in wanted:
            yield sizes.step(TINY, 1, 1, 20)

    def noting(case, shape, device, choice, real=making.calls):
        assert device == "cuda"

        def noted(name, way):
            seen.append(name)
            return way()

        return {n: partial(noted, n, w) for n, w in real(case, TINY, "cpu", choice).items()}

    copy = {"bytes": 1, "gb_per_s": 4000.0, "ms": 1.0}
    monkeypatch.setattr(timing, "Cuda", Clock)
    monkeypatch.setattr(timing, "copy_bandwidth", lambda clock: {**copy, "run": clock.run})
    monkeypatch.setattr(making, "calls", noting)
    monkeypatch.setattr(sizes, "cases", small)
    place = SimpleNamespace(document=lambda: {"device_name": "a stand-in"})
    monkeypatch.setattr(environment, "environment", lambda device: place)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 1 << 30))
    return seen


def test_a_run_is_one_document_with_its_goals(device, tmp_path, capsys):
    words = ["bench", "--only", "linear", "step", "--tiles", "base", "--json"]
    assert main(words) == ExitCode.HOLDS
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [each["what"] for each in document["cases"]] == ["linear", "step"]
    assert not any(each["cannot"] for each in document["cases"])
    assert [row["goal"] for row in document["goals"]] == [goal.name for goal in GOALS]
    verdicts = {row["goal"]: row["verdict"] for row in document["goals"]}
    assert verdicts["step"] == verdicts["linear, few rows"] == "met"
    assert verdicts["decode attention"] == "not measured"
    assert document["tiles"]["choice"] == "base"
    assert (document["copy"]["before"], document["copy"]["after"]) == (4000.0, 4000.0)
    file = tmp_path / "bench.json"
    file.write_text(said.out)
    assert main(["bench", "--show", str(file)]) == ExitCode.HOLDS
    assert capsys.readouterr().out == said.err
    assert "step, later" in said.err
    assert said.err.startswith("qwen3-8b, bfloat16, a stand-in, tiles base\n")


def test_candidates_run_beside_ours(device, capsys):
    assert main(["bench", "--only", "linear", "--tiles", "base", "--candidates"]) == ExitCode.HOLDS
    ran = set(device)
    fitting = [n for n, t in candidates().items() if t.linear]
    assert {f"ours [{name}]" for name in fitting} <= ran
    assert "ours [skip_hidden]" not in ran
    assert "[linear " in capsys.readouterr().out


def test_tiles_that_nobody_knows_are_refused(capsys):
    assert main(["bench", "--tiles", "huge"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("kvparity: --tiles 'huge' is unknown; expected one of base, in-force, ")
    assert len(said.splitlines()) == 1

"""ci/gpu with steps of its own: what is kept, what runs again, and what it tells."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_steps import run as gpu_run
from gpu_steps.reading import read_verdict
from gpu_steps.record import FAILED, LIMIT, GpuError, ResultsFolder, StepOutcome, exit_code
from gpu_steps.steps import RUN, Step

FACTS = {"device": "a device", "torch": "1"}


def step(name: str, program: str, **more) -> Step:
    command = (sys.executable, "-c", program)
    step = Step(name, f"{name}?", command, read_verdict, frozenset({"holds"}), expect_s=1)
    return replace(step, **more)


def says(verdict: str, code: int = 0) -> str:
    return f"import sys; print('words'); print('{{\"verdict\": \"{verdict}\"}}'); sys.exit({code})"


@pytest.fixture
def gpu(tmp_path, monkeypatch, capsys):
    """Run steps on a machine that claims to have a device: (exit code, summary, stdout)."""
    monkeypatch.setattr(gpu_run, "facts", lambda: dict(FACTS))

    def run(steps, *arguments):
        code = gpu_run.main(["--out", str(tmp_path / "out"), *arguments], steps)
        text = capsys.readouterr().out
        file = tmp_path / "out" / "summary.json"
        return code, json.loads(file.read_text()), text

    return run


def states(summary):
    return {each["step"]: each["state"] for each in summary["steps"]}


def test_what_is_written(gpu, tmp_path):
    code, summary, text = gpu([step("a", says("holds")), step("b", says("holds"))])
    assert code == summary["exit_code"] == 0
    assert states(summary) == {"a": "ok", "b": "ok"}
    assert summary["facts"] == FACTS
    first = summary["steps"][0]
    assert (first["rc"], first["verdict"]) == (0, "holds")
    assert {"command", "seconds", "asks"} <= set(first)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"summary.json", "evidence.json", "table.md", "log.txt"}
    evidence = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert evidence == {"a": {"verdict": "holds"}, "b": {"verdict": "holds"}}
    assert text.strip() == (tmp_path / "out" / "table.md").read_text().strip()
    assert "| a | a? | ok | holds |" in text


@pytest.mark.parametrize(
    ("program", "state", "words"),
    [
        (says("differs", 1), "failed", "expected holds (rc 1)"),
        (says("holds", 3), "failed", "expected holds (rc 3)"),
        (says("void", 5), "failed", "expected holds (rc 5)"),
        ("import sys; sys.exit('no such thing')", "error", "no such thing"),
        ("print('{}')", "error", "no verdict"),
        ("print('[1]')", "error", "no JSON document"),
        ("pass", "error", "said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "error", "rc -9"),
    ],
)
def test_a_failing_step_is_told_and_the_next_one_runs(gpu, program, state, words):
    code, summary, text = gpu([step("bad", program), step("good", says("holds"))])
    assert code == 1
    assert states(summary) == {"bad": state, "good": "ok"}
    assert words in summary["steps"][0]["reason"]
    assert f"| bad | bad? | {state} |" in text


def test_a_step_that_takes_too_long_is_stopped_with_all_it_started(gpu, tmp_path):
    child = tmp_path / "child.py"
    late = tmp_path / "late"
    child.write_text(f"import time\ntime.sleep(2)\nopen({str(late)!r}, 'w')\n")
    program = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, {str(child)!r}]); "
        "time.sleep(60)"
    )
    code, summary, _ = gpu([step("slow", program, timeout_s=1)])
    assert (code, states(summary)) == (1, {"slow": "timeout"})
    time.sleep(2)
    assert not late.exists()


def test_a_verification_that_is_stopped_tells_what_had_ended(gpu):
    """Its cases are on disk as they end; the last line may be cut off."""
    program = (
        "import pathlib, sys, time; p = pathlib.Path(sys.argv[1], 'run'); p.mkdir(); "
        'text = \'{"verdict": "holds"}\\n\' * 2 + \'{"verdict": "differs"}\\n\' + \'{"ver\'; '
        "(p / 'cases.jsonl').write_text(text); time.sleep(60)"
    )
    slow = step("slow", program, timeout_s=2)
    slow = replace(slow, command=(*slow.command, RUN))
    reason = gpu([slow])[1]["steps"][0]["reason"]
    assert reason == "stopped after 2 s; cases that had ended: 1 differs, 2 holds"


def times(path: Path) -> dict[str, tuple[float, float]]:
    found: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        name, at = line.split()
        found.setdefault(name, []).append(float(at))
    return {name: (min(both), max(both)) for name, both in found.items()}


def test_steps_run_side_by_side_but_for_those_that_are_alone(gpu, tmp_path):
    marks = tmp_path / "marks"
    program = (
        f"import sys, time; f = open({str(marks)!r}, 'a', buffering=1); "
        "say = lambda: f.write(f'{sys.argv[1]} {time.monotonic()}\\n'); "
        "say(); time.sleep(1); say(); "
    )

    def marking(name: str, **more) -> Step:
        made = step(name, program + says("holds"), **more)
        return replace(made, command=(*made.command, name))

    steps = [marking("a"), marking("b"), marking("timed", alone=True), marking("c"), marking("d")]
    code, summary, _ = gpu(steps, "--jobs", "2")
    assert (code, [each["step"] for each in summary["steps"]]) == (0, [s.name for s in steps])
    at = times(marks)
    assert at["a"][0] < at["b"][1]
    assert at["b"][0] < at["a"][1]  # side by side
    assert max(at["a"][1], at["b"][1]) <= at["timed"][0]
    assert at["timed"][1] <= min(at["c"][0], at["d"][0])
    log = (tmp_path / "out" / "log.txt").read_text()
    assert sorted(re.findall(r"^== (\w+):", log, re.MULTILINE)) == ["a", "b", "c", "d", "timed"]


def test_a_module_that_everything_needs_is_named_before_anything_runs(
    tmp_path, monkeypatch, capsys
):
    names = ("torch", "no_such_module", "no_such.package")
    monkeypatch.setattr(gpu_run, "MODULES", names)
    assert gpu_run.main(["--out", str(tmp_path / "out")], [step("a", says("holds"))]) == 2
    told = capsys.readouterr().err
    assert "no_such_module, no_such.package cannot be imported" in told
    assert not (tmp_path / "out").exists()


def test_answers_are_not_asked_again(gpu, tmp_path):
    mark = tmp_path / "mark"
    counted = f"open({str(mark)!r}, 'a').write('x'); " + says("holds")
    broken = f"open({str(mark)!r}, 'a').write('y'); print('nothing')"
    steps = [step("a", counted), step("b", broken)]
    assert gpu(steps)[0] == 1
    assert gpu(steps)[0] == 1  # b has no answer yet
    assert mark.read_text() == "xyy"
    assert gpu(steps, "--only", "a", "--again")[0] == 1  # b still stands there
    assert mark.read_text() == "xyyx"
    assert gpu([steps[0], step("b", says("holds"))])[0] == 0
    assert mark.read_text() == "xyyx"


def test_answers_of_another_machine_do_not_mix(gpu, monkeypatch, capsys):
    gpu([step("a", says("holds"))])
    monkeypatch.setattr(gpu_run, "facts", lambda: FACTS | {"torch": "2"})
    assert gpu([step("a", says("holds"))])[0] == 2
    code, summary, _ = gpu([step("a", says("holds"))], "--again")
    assert (code, summary["facts"]["torch"]) == (0, "2")


def test_published_answers_do_not_change_what_was_asked(tmp_path, monkeypatch):
    """The code's hash decides which results mix; evidence of earlier runs is no code."""
    device = tmp_path / "docs" / "results" / "device"
    (device / "a-device").mkdir(parents=True)
    (device / "place.yaml").write_text("1")
    monkeypatch.setattr(gpu_run, "ROOT", tmp_path)
    before = gpu_run.sources()
    (device / "a-device" / "tests.json").write_text("{}")
    assert gpu_run.sources() == before
    (device / "place.yaml").write_text("2")
    assert gpu_run.sources() != before


def test_without_a_device_nothing_is_claimed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_run, "facts", lambda: FACTS | {"device": None})
    assert gpu_run.main(["--out", str(tmp_path / "out")], [step("a", says("holds"))]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_steps_that_do_not_fit_are_listed(gpu):
    steps = [step("a", says("holds")), step("b", says("holds"), expect_s=10000)]
    code, summary, text = gpu(steps)
    assert code == summary["exit_code"] == 4
    assert states(summary) == {"a": "ok", "b": "not run"}
    assert "about 10000 needed" in text
    failing = [step("bad", says("differs", 1)), steps[1]]
    assert gpu(failing, "--again")[0] == 1  # a failure outranks it
    # A failure is not forgotten when there is no time to try again.
    broken = step("b", "pass", expect_s=0)
    assert gpu([steps[0], broken])[1]["steps"][1]["state"] == "error"
    assert gpu([steps[0], steps[1]])[1]["steps"][1]["state"] == "error"


def test_time_that_is_left_limits_a_step(gpu):
    code, summary, _ = gpu(
        [step("slow", "import time; time.sleep(60)", expect_s=0)], "--minutes", "0.02"
    )
    assert (code, states(summary)) == (1, {"slow": "timeout"})


def test_questions_absent_libraries_and_backends(gpu):
    question = step("question", says("differs", 1), good=frozenset({"holds", "differs"}))
    absent = step("absent", says("holds"), needs="no_such_module_of_ours")
    lacks = "import sys; sys.exit('flash raised RuntimeError: No available kernel.')"
    lacking = step("lacking", lacks, may_lack=("No available kernel",))
    code, summary, text = gpu([question, absent, lacking])
    assert code == 0
    assert states(summary) == {"question": "ok", "absent": "absent", "lacking": "unavailable"}
    assert "No available kernel" in text
    assert gpu([step("lacking", lacks)], "--again")[0] == 1  # only where it was foreseen


def test_the_audit_stands_beside_the_bits(gpu, monkeypatch):
    monkeypatch.setattr(gpu_run, "BESIDE", (("a", "b"),))
    _, summary, text = gpu([step("a", says("holds")), step("b", says("differs", 1))])
    assert summary["audit_beside_bits"] == [{"a": "holds", "b": "differs"}]
    assert "- a: holds, b: differs" in text


def test_evidence_beyond_the_limit_is_an_error(tmp_path):
    record = ResultsFolder(tmp_path, FACTS)
    record.keep(StepOutcome(step="a", asks="", state="ok"), {"x": "y" * LIMIT})
    assert record.outcomes["a"].state in FAILED
    assert record.write(["a"], (), "") == 1
    assert (tmp_path / "evidence.json").stat().st_size < 100
    with pytest.raises(GpuError, match="another torch"):
        ResultsFolder(tmp_path, FACTS | {"torch": "3"})


def test_a_long_log_keeps_its_end(gpu, tmp_path):
    chatty = "import sys; sys.stderr.write('x' * 1000000 + 'the end\\n'); " + says("holds")
    assert gpu([step("a", says("holds")), step("b", chatty), step("c", says("holds"))])[0] == 0
    log = (tmp_path / "out" / "log.txt").read_text()
    assert len(log) < 300_000
    assert next(line for line in log.splitlines() if line.startswith("== ")).startswith("== a")
    assert log.index("the end") < log.index("== c")


def test_exit_codes():
    assert exit_code(["ok", "absent", "unavailable"]) == 0
    assert exit_code(["ok", "not run"]) == 4
    assert [exit_code(["not run", bad]) for bad in FAILED] == [1, 1, 1]

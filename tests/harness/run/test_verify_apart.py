"""Verifications from the command line: the subject runs apart, and the answer is kvparity's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naive_pair
import pytest
from warm import Warm

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.core.isolation.pool import Apart
from kvparity.run import pools

pytestmark = pytest.mark.usefixtures("apart")

Command = Callable[..., int]
KERNELS = f"""
import ctypes, os, sys, threading, time
sys.path.insert(0, {str(Path(naive_pair.__file__).parent)!r})
from naive_pair import decode, prefill

if os.environ.get("KVPARITY_TEST") == "import":
    ctypes.CDLL(None).exit(0)


def decode_leaves(q, k, v, *, kv_lens, scale):
    if int(kv_lens.max()) > 9:
        if os.environ.get("KVPARITY_TEST") == "leave":
            ctypes.CDLL(None).exit(0)
        if os.environ.get("KVPARITY_TEST") == "blind":
            from kvparity.relations import bits_and_limits
            from kvparity.run import worker
            worker.still_settled = lambda where: None
            held = "Comparison('holds', 'every bit is equal', len(a.index), max_ulp=0)"
            lie = eval(f"lambda a, b, *, column=None: {{held}}")
            bits_and_limits.invariance.__code__ = lie.__code__
        if os.environ.get("KVPARITY_TEST") == "thread":
            os.environ["KVPARITY_TEST"] = ""
            threading.Thread(target=time.sleep, args=(60,), name="left-behind").start()
    return decode(q, k, v, kv_lens=kv_lens, scale=scale)
"""
CONTRACT = """\
version: 1
name: apart
subject:
  kind: attention
  prefill: kernels.py:prefill
  decode: kernels.py:decode_leaves
  heads: {query: 2, kv: 1, dim: 4}
numerics: {execution: float32}
workloads:
  - {name: longer, prompt_tokens: [3], generate: 2}
  - {name: short, prompt_tokens: [10], generate: 2}
checks:
  - {name: bits, relation: invariance, paths: [decode]}
controls: [stale-slot]
"""


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    (tmp_path / "kernels.py").write_text(KERNELS)
    file = tmp_path / "c.yaml"
    # The heavier unit comes first, so the pair leaves in the second one where that is the lighter.
    file.write_text(CONTRACT.replace("prompt_tokens: [3]", "prompt_tokens: [2, 2, 2, 2, 2, 2]"))
    return file


@pytest.fixture
def command(warm: Warm) -> Command:
    """Runs a command line; what it says is on our own stdout and stderr."""

    def run(*arguments: str) -> int:
        done = warm.run(*arguments, folder=Path.cwd())
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode

    return run


def asked(contract: Path, folder: Path, *more: str) -> list[str]:
    return ["verify", str(contract), "--jobs", "1", "--run-dir", str(folder), *more]


def test_a_process_that_leaves_keeps_what_is_finished_and_can_be_resumed(
    contract: Path,
    tmp_path: Path,
    command: Command,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("KVPARITY_TEST", "leave")
    assert command(*asked(contract, run, "--json")) == ExitCode.ERROR
    words = json.loads(capfd.readouterr().out)["error"]
    assert "the subject ended the process with exit code 0: case c001: invariance of" in words
    assert "over short in float32, in kernels.py:decode_leaves" in words
    assert "1 finished case is kept" in words
    assert not (run / "run.json").exists()
    monkeypatch.delenv("KVPARITY_TEST")
    assert command(*asked(contract, run, "--resume", "--json")) == ExitCode.HOLDS
    report = json.loads(capfd.readouterr().out)
    assert json.loads((run / "run.json").read_text()) == report
    assert "--resume" not in report["command"]  # that of the beginning
    # So it is with a replay, which is a whole command in a process of its own.
    assert command("replay", str(run), "c001", "--json") == ExitCode.HOLDS
    assert json.loads(capfd.readouterr().out)["case"]["id"] == "c001"
    monkeypatch.setenv("KVPARITY_TEST", "leave")
    assert command("replay", str(run), "c001", "--json") == ExitCode.ERROR
    out, err = capfd.readouterr()
    assert "exit code 0: case c001" in json.loads(out)["error"]
    assert "in kernels.py:decode_leaves" in err


def test_a_file_that_ends_the_process_while_it_is_imported(
    contract: Path,
    tmp_path: Path,
    command: Command,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KVPARITY_TEST", "import")
    monkeypatch.chdir(tmp_path)
    assert command("verify", str(contract), "--jobs", "1") == ExitCode.ERROR
    assert "exit code 0: loading the subject in float32" in capfd.readouterr().err
    assert list((tmp_path / ".kvparity" / "runs").iterdir()) == []  # nothing stops the next one


def test_a_thread_that_stays_is_an_error_also_when_the_run_is_resumed(
    contract: Path,
    tmp_path: Path,
    command: Command,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("KVPARITY_TEST", "thread")
    assert command(*asked(contract, run)) == ExitCode.ERROR
    err = capfd.readouterr().err
    assert "left threads that go on after its last case: left-behind" in err
    assert "2 finished cases are kept" in err
    assert not (run / "run.json").exists()
    monkeypatch.delenv("KVPARITY_TEST")
    assert command(*asked(contract, run, "--resume")) == ExitCode.USAGE
    assert "did not end correctly" in capfd.readouterr().err


def test_nothing_is_believed_of_a_process_in_which_the_looks_themselves_are_replaced(
    contract: Path,
    tmp_path: Path,
    command: Command,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("KVPARITY_TEST", "blind")
    assert command(*asked(contract, run)) == ExitCode.ERROR
    assert "is no longer the function that it was" in capfd.readouterr().err
    monkeypatch.delenv("KVPARITY_TEST")
    assert command(*asked(contract, run, "--resume")) == ExitCode.USAGE
    assert "did not end correctly" in capfd.readouterr().err


def test_the_limit_and_the_processes_are_those_asked_for(
    contract: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []

    class Noted(Apart):
        def __init__(self, jobs: int, timeout: float, *arguments: Any, **more: Any) -> None:
            seen.append((jobs, timeout))
            raise KeyboardInterrupt

    monkeypatch.setattr(pools, "Apart", Noted)
    assert main(asked(contract, tmp_path / "a", "--timeout", "7.5")) == ExitCode.INTERRUPTED
    assert main(asked(contract, tmp_path / "b", "--jobs", "3")) == ExitCode.INTERRUPTED
    assert seen == [(1, 7.5), (3, 3600)]
    for bad in ("0", "-1", "nan", "inf", "1e9"):
        assert main(asked(contract, tmp_path / "c", "--timeout", bad)) == ExitCode.USAGE
        assert f"--timeout {float(bad):g}: expected seconds" in capsys.readouterr().err

"""Every run has its own folder, and one that was refused leaves none."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, NoReturn

import pytest

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.report.run_dir import Evidence, RunFolderError
from kvparity.run import options

CONTRACT = {
    "version": 1,
    "name": "gone",
    "subject": {"kind": "decoder", "checkpoint": "not-here"},
    "numerics": {"execution": "float32"},
    "workloads": [{"name": "short", "prompt_tokens": [3], "generate": 4}],
    "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
    "controls": ["stale-slot"],
}


def test_runs_that_begin_in_one_moment_get_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options.time, "strftime", lambda _: "20260101-000000")
    together = Barrier(16)

    def begin(_: int) -> Path:
        together.wait()
        return options.new_folder("smoke")

    with ThreadPoolExecutor(16) as threads:
        folders = set(threads.map(begin, range(16)))
    assert len(folders) == 16
    assert all(folder.is_dir() for folder in folders)
    names = sorted(folder.name for folder in folders)
    assert names[0] == "20260101-000000-smoke"
    assert all(re.fullmatch(r"20260101-000000-smoke-\d+", name) for name in names[1:])


def test_of_two_that_begin_in_one_folder_one_does(tmp_path: Path) -> None:
    about = {"path": "c.yaml", "contract": "abc"}
    run = tmp_path / "run"
    run.mkdir()
    first, second = Evidence(run), Evidence(run)
    listed = list(run.iterdir())  # what the second saw before the first wrote
    first.start(about, resume=False)
    assert listed == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda self: iter(listed))
        with pytest.raises(RunFolderError, match="another kvparity began a run"):
            second.start(about, resume=False)
    assert json.loads((run / "identity.json").read_text()) == about | {"command": ""}
    assert sorted(each.name for each in run.iterdir()) == ["failures", "identity.json"]


def test_a_run_that_was_killed_as_it_began_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "identity.json.part-123").write_text('{"path": "c.y')
    Evidence(tmp_path).start({"path": "c.yaml"}, resume=False)
    assert (tmp_path / "identity.json").is_file()


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path, capsys: Any, there: bool) -> None:
    contract, run = tmp_path / "c.yaml", tmp_path / "deep" / "run"
    contract.write_text(json.dumps(CONTRACT))
    if there:
        run.mkdir(parents=True)
    for _ in range(2):  # the first does not stop the second
        command = ["verify", str(contract), "--run-dir", str(run), "--device", "cpu"]
        assert main(command) == ExitCode.USAGE
        assert "not-here" in capsys.readouterr().err
        assert run.exists() == there
        assert not there or list(run.iterdir()) == []


def test_what_was_finished_or_is_anothers_stays(tmp_path: Path) -> None:
    about = {"path": "c.yaml", "contract": "abc"}

    def refused(folder: Path, name: str | None) -> None:
        with Evidence(folder).alone(about, resume=False):
            if name is not None:
                (folder / name).write_text("{}\n")
            raise RunFolderError("refused")

    for name in ("cases.jsonl", "notes.txt"):
        with pytest.raises(RunFolderError):
            refused(tmp_path / name, name)
        assert {each.name for each in (tmp_path / name).iterdir()} >= {name, "identity.json"}
    with pytest.raises(RunFolderError):
        refused(tmp_path / "none", None)
    assert not (tmp_path / "none").exists()
    with pytest.raises(KeyboardInterrupt), Evidence(tmp_path / "c").alone(about, resume=False):
        raise KeyboardInterrupt  # its message says how to go on in the folder
    assert (tmp_path / "c" / "identity.json").is_file()


def test_what_takes_long_to_import_is_imported_where_ctrl_c_has_an_answer() -> None:
    program = "import sys, kvparity.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "kvparity.cli.main" in done.stdout.split()
    assert not {"pydantic", "kvparity_contracts", "torch", "numpy"} & set(done.stdout.split())


def test_ctrl_c_has_an_answer_from_the_first_moment() -> None:
    program = (
        "import kvparity.cli.main as m; print(flush=True); raise SystemExit(m.main(['doctor']))"
    )
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + program
    with subprocess.Popen(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert (process.returncode, said) == (ExitCode.INTERRUPTED, "kvparity: interrupted\n")


@pytest.mark.parametrize("where", ["kvparity.cli.main.parser", "kvparity.cli.doctor.run"])
def test_ctrl_c_that_a_library_makes_an_error_of_its_own_is_ctrl_c(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def built(*_: object) -> NoReturn:  # as pydantic-core does while it builds a model
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("KeyboardInterrupt: ") from None
        raise AssertionError("no interruption came")

    monkeypatch.setattr(where, built)
    assert main(["doctor"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "kvparity: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_something_took_for_its_own_failure_is_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tried(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            return ExitCode.ERROR
        raise AssertionError("no interruption came")

    monkeypatch.setattr("kvparity.cli.doctor.run", tried)
    assert main(["doctor"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "kvparity: interrupted\n"


def test_a_process_of_ours_ends_where_ctrl_c_comes_during_an_import(tmp_path: Path) -> None:
    # C++ that imports is not to see an exception there: this import would make one of its own
    (tmp_path / "importing.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('an exception came')\n"
    )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['kvparity', 'doctor']\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import kvparity.cli.main as m\n"
        "m.parser = lambda: __import__('importing')\n"
        "from kvparity.__main__ import command; command()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "kvparity: interrupted\n")

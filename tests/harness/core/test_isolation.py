"""Processes for foreign code: whatever it does to its own, the parent ends with its own answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faults
import pytest
from few import few

from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.core.isolation.pool import Apart, BadEndError, InternalError, PoolTask

CASE = "case c012: invariance of decode over long, in mine.py:decode"


def apart(
    *tasks: tuple[Any, ...], jobs: int = 1, timeout: float = 30, grace: float = 5
) -> list[Any]:
    """The results of ``faults.work`` with these arguments."""
    with Apart(jobs, timeout, lambda what: None, grace=grace) as pool:
        found = list(pool.run(PoolTask(faults.work, task) for task in tasks))
        pool.finish()
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_values_come_back_as_plain_data() -> None:
    tasks = [("", {"a": [n, (1, 2)]}) for n in range(3)]
    found = apart(*tasks, ("forks well",), ("daemon",), ("quiet",))
    assert found == [*[{"a": [n, [1, 2]]} for n in range(3)], "whole", None, "1"]
    assert {*apart(("",), ("pid",), jobs=2)} != {None, os.getpid()}


@pytest.mark.parametrize(
    ("fault", "words"),
    few(
        [
            (("exit",), f"the subject ended the process with exit code 0: {CASE}"),
            (("_exit",), f"the subject ended the process with exit code 0: {CASE}"),
            (("exec", "/bin/true"), f"the subject ended the process with exit code 0: {CASE}"),
            (
                ("exec", "/bin/sleep", "60"),
                f"closed the pipes of its process, or put another program in its place (exec): "
                f"{CASE}",
            ),
            (("abort",), f"was killed by SIGABRT: {CASE}"),
            (("segfault",), f"was killed by SIGSEGV: {CASE}"),
            (("killed",), f"was killed by SIGKILL (out of memory?): {CASE}"),
            (("forks",), f"{CASE}: the subject forked"),
            (("forks late",), "the subject forked"),
            (("raises", "interrupt"), "the subject raised KeyboardInterrupt: words"),
        ],
        5,
    ),
)
def test_a_process_that_ends_is_an_error_that_names_the_place(
    fault: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(SubjectError) as error:
        apart(("",), fault, ("",))
    assert words in str(error.value)
    # A copy may come back so late that all tasks were done.
    assert "forks" in fault[0] or not isinstance(error.value, BadEndError)


def test_closed_pipes_are_told_without_a_word_of_ours(capfd: Any) -> None:
    with pytest.raises(SubjectError, match="the subject closed the pipes") as error:
        apart(("",), ("closes",), ("",))
    assert CASE.partition(", in ")[0] in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("atexit", "exit code 0 while ending the process, after all cases, in a function reg"),
        ("atexit hangs", "did not end within 0.6 s and was killed, while ending the process"),
        ("thread", "left threads that go on after its last case: left-behind"),
    ],
)
def test_a_process_that_does_not_end_well_is_an_error(fault: str, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadEndError) as error:
        apart((fault,), grace=0.6)
    assert words in str(error.value)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("fault", ["hangs", "deaf"])
def test_what_takes_too_long_is_killed_and_named(fault: str) -> None:
    began = time.monotonic()
    told: list[str] = []
    with (
        pytest.raises(SubjectError, match="the limit of --timeout") as error,
        Apart(1, 1.2, told.append) as pool,
    ):
        list(pool.run([PoolTask(faults.work, (fault,))]))
    assert str(error.value).startswith(CASE)
    assert time.monotonic() - began < 20
    assert told[-1] == f"{CASE} (1 s)"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("SubjectError", SubjectError),
        ("UnsupportedError", UnsupportedError),
        ("RunFolderError", RunFolderError),
        ("GoneError", SubjectError),
        ("ZeroDivisionError", InternalError),
    ],
)
def test_errors_keep_their_kind(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="words"):
        apart(("raises", kind))


def test_nothing_but_plain_data_comes_back() -> None:
    with pytest.raises(InternalError, match="not JSON serializable"):
        apart(("odd",))


def test_what_a_subject_started_ends_with_it() -> None:
    (pid,) = apart(("child",))
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


PARENT = """
import faults, sys
from kvparity.core.isolation.pool import Apart, PoolTask
with Apart(2, 60, lambda what: None) as pool:
    tasks = [PoolTask(faults.work, (what,)) for what in ("pid", "pid", "hangs", "hangs")]
    for pid in pool.run(tasks):
        print(pid, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent_and_leave_no_word(number: signal.Signals) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pids = {int(parent.stdout.readline()) for _ in range(2)}
        assert all(map(alive, pids))  # the control: they are there
        parent.send_signal(number)
        said = parent.stderr.read()
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert "resource_tracker" not in said
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)

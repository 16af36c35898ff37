"""Output that cannot be written: exit code 3, never another, and the rest is still said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvparity.cli import doctor
from kvparity.cli.main import main
from kvparity.cli.streams import Stream, unwritten
from kvparity.core.exit_codes import ExitCode

LINT = [sys.executable, "-m", "kvparity", "contract", "lint", "smoke"]


def shell(redirection: str, *more: str) -> subprocess.CompletedProcess[str]:
    """The exit code, and what was said where it could be, of a command whose output fails."""
    line = 'exec "$@" ' + redirection
    return subprocess.run(
        ["sh", "-c", line, "sh", *LINT, *more], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "more", "out", "err"),
    [
        ("", [], "smoke", ""),  # the control: all is heard
        (">/dev/full", [], "", "kvparity: stdout could not be written: No space left on device\n"),
        (">&-", ["--json"], "", "kvparity: stdout could not be written: it is closed\n"),
        ("2>/dev/full", ["--json"], "smoke", ""),
        ("2>&-", [], "smoke", ""),
        (">/dev/full 2>/dev/full", [], "", ""),
        (">&- 2>&-", ["--json"], "", ""),
        ("<&- >&- 2>/dev/full", [], "", ""),
    ],
)
def test_a_full_or_closed_stream_is_an_error(
    redirection: str, more: list[str], out: str, err: str
) -> None:
    done = shell(redirection, *more)
    assert done.returncode == (ExitCode.ERROR if redirection else ExitCode.HOLDS)
    assert done.stderr == err
    assert out in done.stdout
    assert bool(out) == bool(done.stdout)
    if out and more:
        json.loads(done.stdout)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_leaves_gets_no_word(more: list[str]) -> None:
    gone, end = os.pipe()
    os.close(gone)
    left = subprocess.run(
        [*LINT, *more], stdout=end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(end)
    assert (left.returncode, left.stderr) == (ExitCode.ERROR, "")


def test_help_that_cannot_be_said_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as end:
            main(["--help"])
    assert end.value.code == ExitCode.ERROR


@pytest.mark.parametrize("failing", ["stdout", "stderr"])
@pytest.mark.parametrize("code", [ExitCode.HOLDS, ExitCode.DIFFERS])
def test_a_verdict_that_could_not_be_said_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str, code: int
) -> None:
    def run(args: object) -> int:
        from kvparity.cli import say

        print("much to say\n" * 10_000, file=sys.stderr)  # more than a buffer holds
        say.document({"verdict": "as found"})
        return code

    monkeypatch.setattr(doctor, "run", run)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, failing, full)
        assert main(["doctor", "--json"]) == ExitCode.ERROR
        monkeypatch.undo()
    out, err = capsys.readouterr()
    if failing == "stderr":
        assert json.loads(out) == {"verdict": "as found"}
    else:
        assert (out, "much to say" in err) == ("", True)


def test_a_stream_of_a_caller_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    main(["contract", "list"])
    assert (sys.stdout, sys.stderr) == before
    out, err = Stream("stdout", sys.stdout), Stream("stderr", sys.stderr)
    out.write("heard")
    assert not unwritten(out, err)
    assert capsys.readouterr().out.endswith("heard")

"""One document on stdout with ``--json``, whatever happens and whoever else prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from warm import Warm

from kvparity.cli import doctor, say
from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError, SubjectError, UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity_contracts.problems import ContractError, Problem
from kvparity_kernels.relied import GoneError

HERE = Path(__file__).parents[1]

CONTRACT = f"""\
version: 1
name: printing
subject:
  kind: attention
  prefill: {HERE / "hostile_pair.py"}:prefill
  decode: {HERE / "hostile_pair.py"}:decode_prints
  heads: {{query: 2, kv: 1, dim: 4}}
numerics: {{execution: float32}}
workloads:
  - {{name: short, prompt_tokens: [2], generate: 3}}
checks:
  - {{name: bits, relation: invariance, paths: [decode]}}
controls: [stale-slot]
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_subject_that_prints_does_not_reach_stdout(tmp_path: Path, jobs: int, warm: Warm) -> None:
    (tmp_path / "contract.yaml").write_text(CONTRACT)
    asked = ["verify", "contract.yaml", "--json", "--jobs", str(jobs)]
    done = warm.run(*asked, folder=tmp_path, jobs=jobs)
    assert done.returncode == ExitCode.HOLDS, done.stderr
    assert json.loads(done.stdout)["verdict"] == "holds"
    assert "decoding, past Python" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trace", "no/such.yaml"], "there is no such file"),
        (["order", "no/such.yaml"], "there is no such file"),
        (["audit", "no/such.yaml"], "there is no such file"),
        (["replay", "no-such-run", "c000"], "holds no run"),
        (["controls", "--only", "nothing"], "unknown control"),
        (["bench", "--show", "no-such-file"], "no-such-file"),
        (
            ["verify", "smoke", "--jobs", "many"],
            "found 'many', expected a number of processes, or auto",
        ),
        (["verify"], "the following arguments are required: contract"),
    ],
)
def test_what_goes_wrong_is_a_document(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], words: str
) -> None:
    try:
        code = main([*arguments, "--json"])
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verdict"], found["exit_code"], code) == ("error", code, ExitCode.USAGE)
    assert words in found["error"]
    assert words in err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(0), 3, "internal error: SystemExit: 0"),
        (RuntimeError("a bug"), 3, "internal error: RuntimeError: a bug"),
        (ModuleNotFoundError(name="torch"), 3, "error: torch is not installed; pip install torch"),
        (ModuleNotFoundError("no", name="kvparity.x"), 3, "internal error: ModuleNotFoundError"),
        (ContractError([Problem("a.yaml", 2, 1, "name", "is missing")]), 2, "a.yaml:2:1: name: "),
        (UnsupportedError("not this path"), 2, "not this path"),
        (RunFolderError("not this folder"), 2, "not this folder"),
        (SubjectError("it broke"), 3, "error: it broke"),
        (GoneError("it is gone"), 3, "error: it is gone"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_command_that_ends_early_has_a_document(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
) -> None:
    """What is raised on purpose has one meaning in every verb; the rest is a fault of ours."""

    def broken(args: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", broken)
    assert main(["doctor", "--json"]) == code
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verdict"], found["exit_code"]) == ("error", code)
    assert found["error"].startswith(said)
    assert found["error"] in err


def test_the_document_of_an_expected_error_holds_its_sentence_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: object) -> int:
        print("a library warns", file=sys.stderr)
        raise UnsupportedError("not this path")

    monkeypatch.setattr(doctor, "run", broken)
    assert main(["doctor", "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"] == "not this path"


def test_streams_that_a_subject_closes_stay_open(capsys: pytest.CaptureFixture[str]) -> None:
    with say.listening() as said:
        print("not for stdout")
        sys.stdout.close()
        sys.stderr.close()
        say.document({"verdict": "holds"})
    assert json.loads(said.finished(0)) == {"verdict": "holds"}
    print("open")
    assert capsys.readouterr() == ("open\n", "not for stdout\n")

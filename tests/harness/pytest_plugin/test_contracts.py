"""Contracts as tests of pytest: each case, each control and the verdict."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pair_contracts import PAIRS, write

# What is first imported in a pytest of its own is taken away with it.
import kvparity.run.verify  # noqa: F401
from kvparity.cli.main import main

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "kvparity.pytest_plugin")
HARNESS = Path(__file__).parents[3] / "harness"
Run = Callable[..., pytest.RunResult]


def ran(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGIN, "-p", "no:xdist", *arguments)


def edited(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def test_a_contract_that_holds(pytester: pytest.Pytester, calls: list[Sequence[str]]) -> None:
    write(pytester.path)
    found = ran(pytester, "pair.yaml", "-v", "--kvparity-device", "cpu")
    found.assert_outcomes(passed=10)
    assert found.ret == 0
    found.stdout.fnmatch_lines(
        [
            "pair.yaml::same-bits::decode-short-float32 PASSED*",
            "pair.yaml::right::prefill-longer-float32 PASSED*",
            "pair.yaml::controls::stale-slot-invariance PASSED*",
            "pair.yaml::verdict PASSED*",
        ]
    )
    assert len(calls) == 1, "all tests of a contract share one verification"
    assert [*calls[0][-2:]] == ["--device", "cpu"]
    (run,) = (pytester.path / ".kvparity/runs").iterdir()
    assert (run / "run.json").is_file()


def test_a_difference_says_where_and_how_to_look_closer(
    pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    write(pytester.path, decode=f"{PAIRS}:decode_reversed")
    found = ran(pytester, "pair.yaml", "--kvparity-run-dir", "evidence")
    assert found.ret == 1
    outcomes = found.parseoutcomes()
    assert outcomes["failed"] == 5, "four cases of bits, and the verdict"
    text = found.stdout.str()
    assert "DIFFERS: " in text
    assert "sequence short/0, position 2" in text
    assert " bits 0x" in text
    assert "Traceback" not in text
    assert str(HARNESS) not in text, "no frame of ours"
    (run,) = (pytester.path / "evidence").iterdir()
    again = next(line for line in text.splitlines() if "to look closer: " in line)
    words = again.split("to look closer: kvparity ")[1].split()
    assert words[:2] == ["replay", str(run)]
    assert main(["replay", *words[1:]]) == 1


def test_a_control_that_is_not_caught_fails_it(
    pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    edited(write(pytester.path), "max_abs: 1.0e-5", "max_abs: 1.0e+5")
    found = ran(pytester, "pair.yaml", "-rf")
    assert found.ret == 1
    found.stdout.fnmatch_lines(["*controls::wrong-input-accuracy*", "*verdict*"])
    assert found.parseoutcomes()["failed"] == 2
    assert "not caught: expected differs, found holds" in found.stdout.str()


@pytest.mark.parametrize(
    ("named", "verdict"), [("all", "skipped"), ("[tile-by-query-length]", "failed")]
)
def test_a_control_that_cannot_be_planted(
    pytester: pytest.Pytester, calls: list[Sequence[str]], named: str, verdict: str
) -> None:
    """Of a pair that returns no LSE: skipped, but where the contract asks for it."""
    pytester.makepyfile(
        mine="import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('pairs', {str(PAIRS)!r})\n"
        "pairs = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(pairs)\n"
        "def prefill(*a, **k): return pairs.prefill(*a, **k)[0]\n"
        "def decode(*a, **k): return pairs.decode(*a, **k)[0]\n"
    )
    path = write(pytester.path, prefill="mine.py:prefill", decode="mine.py:decode")
    edited(path, "[11]", "[66, 66]")
    edited(path, "[stale-slot, narrow-cache, wrong-input]", named)
    found = ran(pytester, "pair.yaml", "-rsf", "-k", "tile-by-query-length")
    assert found.parseoutcomes()[verdict] == 1
    assert "this defect is built from the LSE" in found.stdout.str()


def test_a_control_that_is_named_and_has_no_place_fails(
    pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    edited(write(pytester.path), "[stale-slot, ", "[softcap-ignored, stale-slot, ")
    found = ran(pytester, "pair.yaml", "-k", "softcap-ignored")
    assert found.parseoutcomes()["failed"] == 1
    found.stdout.fnmatch_lines(["not planted, and the contract names it: it cannot show here*"])


def test_a_broken_contract_is_told_with_its_line(
    pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    edited(write(pytester.path), "batched", "batchd")
    found = ran(pytester, "pair.yaml")
    assert found.ret == pytest.ExitCode.INTERRUPTED
    found.stdout.fnmatch_lines(["*pair.yaml:13:*batchd*"])
    assert str(HARNESS) not in found.stdout.str()
    assert calls == []


def test_a_subject_that_raises_fails_every_test_and_is_told_once(
    pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    write(pytester.path, decode=f"{PAIRS}:decode_wrong_shape")
    found = ran(pytester, "pair.yaml")
    assert found.ret == 1
    assert found.parseoutcomes()["failed"] == 10
    assert len(calls) == 1
    said = "\n".join(found.outlines).split("short test summary")[0]
    assert said.count("error: ") == 1
    assert said.count("there is no report; pair.yaml::same-bits::") == 9
    assert str(HARNESS) not in said


@pytest.mark.parametrize(
    ("setting", "argument", "tests"),
    [
        ("", ".", 0),
        ("kvparity_files = contracts/*.yaml", ".", 10),
        ("kvparity_files = other/*.yaml", ".", 0),
        ("", "contracts/pair.yaml", 10),
        ("", "contracts/other.yaml", 0),
    ],
)
def test_only_contracts_that_are_named_are_collected(
    pytester: pytest.Pytester, setting: str, argument: str, tests: int
) -> None:
    pytester.makeini(f"[pytest]\n{setting}\n")
    write(pytester.mkdir("contracts"))
    (pytester.path / "contracts/other.yaml").write_text("stages: [build]\n")
    found = ran(pytester, "--collect-only", "-q", argument)
    assert found.stdout.str().count(".yaml::") == tests


def test_a_contract_of_one_line_of_json_is_collected(pytester: pytest.Pytester) -> None:
    path = write(pytester.path)
    (pytester.path / "pair.json").write_text(json.dumps(yaml.safe_load(path.read_text())))
    found = ran(pytester, "--collect-only", "-q", "pair.json")
    assert found.stdout.str().count("pair.json::") == 10


def test_a_contract_that_cannot_be_read_is_an_error_in_words(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(pytester.path)

    def denied(opened: Callable[..., object]) -> Callable[..., object]:
        def opening(file: object, *args: Any, **more: Any) -> object:
            if str(file).endswith("pair.yaml"):
                raise PermissionError(errno.EACCES, "Permission denied", str(file))
            return opened(file, *args, **more)

        return opening

    for module in (io, builtins, os):
        monkeypatch.setattr(module, "open", denied(module.open))
    found = ran(pytester, path.name)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*ERROR collecting pair.yaml*", "*ermission denied*"])
    assert "Traceback" not in found.stdout.str()
    assert str(HARNESS) not in found.stdout.str()


def test_the_plugin_alone_imports_next_to_nothing(pytester: pytest.Pytester) -> None:
    found = pytester.runpython_c(
        "import sys, kvparity.pytest_plugin\n"
        "print(sorted({'torch', 'pydantic', 'numpy', 'triton'} & set(sys.modules)))"
    )
    found.stdout.fnmatch_lines(["[[]]"])

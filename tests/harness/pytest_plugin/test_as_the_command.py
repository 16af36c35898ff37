"""A contract as tests ends as ``kvparity verify`` does, and a plugin with a flaw does not."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from pair_contracts import PAIRS, write
from plugin_ends import Ends, of_command, of_tests, unlike
from plugin_flaws import FLAWS

# What is first imported in a pytest of its own is taken away with it.
import kvparity.run.verify  # noqa: F401
from kvparity.cli.main import main
from kvparity.pytest_plugin import outcome
from kvparity_contracts.library import FOLDER

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "kvparity.pytest_plugin")


def told(pytester: pytest.Pytester, command: Ends, *arguments: str) -> list[str]:
    """What tests of ``pytest`` with these arguments say otherwise than the command."""
    runs = pytester.path / "plugin"
    shutil.rmtree(runs, ignore_errors=True)
    written = ("--kvparity-run-dir", str(runs), "--junitxml=j.xml")
    found = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:xdist", *arguments, *written)
    return unlike(command, of_tests(int(found.ret), Path("j.xml"), runs))


def commanded(contract: str) -> Ends:
    """What the command says."""
    run, err = Path.cwd() / "own", io.StringIO()
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        code = main(["verify", contract, "--device", "cpu", "--jobs", "1", "--run-dir", str(run)])
    return of_command(code, run, err.getvalue())


def flawed(flaw: str, command: Ends) -> list[str]:
    """Arguments that plant it at a case that differs."""
    case = next(what[0] for what, end in command.by.items() if len(what) == 1 and end == "failed")
    return ["-p", "plugin_flaws", "--flaw", flaw, "--flaw-of", case]


def test_tests_say_what_the_command_does_and_a_flaw_shows(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a plugin that drops a failing case, or passes it."""
    write(pytester.path, decode=f"{PAIRS}:decode_reversed")
    command = commanded("pair.yaml")

    def found(arguments: Sequence[str]) -> tuple[int, str]:
        shutil.copytree("own", arguments[arguments.index("--run-dir") + 1])
        return command.code, command.words

    monkeypatch.setattr(outcome, "run_process", found)
    assert told(pytester, command, "pair.yaml") == []
    for flaw, seen in zip(FLAWS, ("no test", "passed"), strict=True):
        says = told(pytester, command, "pair.yaml", *flawed(flaw, command))
        assert says == [f"c000: {seen}, by the command failed"]


def test_other_ends_show_too() -> None:
    """Of the whole, of a control, of what a command cannot run."""
    command = Ends(1, {(): "failed", ("c0",): "failed", ("a", "order"): "passed"})
    error = Ends(3, {}, "no server")
    for tests, words in (
        (Ends(0, command.by), "the command ended with 1 and pytest with 0"),
        (Ends(1, {**command.by, (): "passed"}), "the verdict: passed, by the command failed"),
        (
            Ends(1, {**command.by, ("a", "order"): "skipped"}),
            "a-order: skipped, by the command passed",
        ),
        (Ends(1, {**command.by, ("c1",): "passed"}), "c1: passed, by the command no test"),
    ):
        assert unlike(command, tests) == [words]
    assert unlike(error, Ends(1, {(): "failed"}, "error: case c003: no server")) == []
    named = Ends(1, {**command.by, ("b", "order"): "skipped"})
    assert unlike(named, Ends(1, command.by)) == unlike(named, named) == []
    assert len(unlike(error, Ends(1, {(): "passed"}, "other"))) == 2


OWN = ("attention-sdpa", "attention-flashinfer", "transformers-qwen3-sdpa")
"""Of the library: a pair that differs, one that lacks a package, a model that differs. All of it:
``ci/studies/plugin_library.py``."""


@pytest.fixture(scope="module")
def imported() -> None:
    """What the library's subjects import later: it stays, too, and torch takes some only once."""
    import torch.nn.attention.bias  # noqa: F401
    from transformers import AttentionInterface  # noqa: F401


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
@pytest.mark.usefixtures("imported")
def test_a_contract_of_the_library_ends_as_the_command_does(
    name: str, pytester: pytest.Pytester, calls: list[Sequence[str]]
) -> None:
    command = commanded(name)
    file = Path(f"{name}.yaml")  # beside no settings of pytest but the test's own
    file.write_text((FOLDER / file).read_text())
    asked = (str(file), "--kvparity-device", "cpu")
    assert told(pytester, command, *asked) == []
    assert len(calls) == 1, "all tests of a contract share one verification, and its error"
    flaws = FLAWS[:1] if command.by else ()
    assert all(told(pytester, command, *asked, *flawed(flaw, command)) for flaw in flaws)


@pytest.mark.slow
def test_processes_of_xdist_share_one_verification(pytester: pytest.Pytester) -> None:
    write(pytester.path)
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "-n", "2", "-v", "pair.yaml"],
        cwd=pytester.path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout
    assert "[gw1]" in done.stdout
    assert len(list((pytester.path / ".kvparity/runs").iterdir())) == 1

"""At the end of a run that differs, its cases are located: within a budget, and said where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pair_contracts import PAIRS, write
from run_documents import DIVERGENCE, case, whole_report
from warm import Warm

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.core.isolation.inside import here
from kvparity.report.terminal import render
from kvparity.run import locate_red
from kvparity.run.locate_red import located
from kvparity_contracts.loader import load

TURNED = f"""
import importlib.util, os

spec = importlib.util.spec_from_file_location("given_pairs", {str(PAIRS)!r})
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)
prefill = pairs.prefill


def decode(q, k, v, *, kv_lens, scale):
    k, v = k.clone(), v.clone()
    for b, n in enumerate(kv_lens.tolist()):
        k[b, :n], v[b, :n] = k[b, :n].flip(0), v[b, :n].flip(0)
    return pairs.decode(q, k, v, kv_lens=kv_lens, scale=scale)
"""


def turned(folder: Path) -> Path:
    (folder / "mine.py").write_text(TURNED)
    return write(folder, prefill="mine.py:prefill", decode="mine.py:decode")


def test_a_run_that_differs_says_where(tmp_path: Path, warm: Warm) -> None:
    contract, run = turned(tmp_path), tmp_path / "run"
    asked = ["verify", str(contract), "--run-dir", str(run), "--jobs", "1", "--json"]
    done = warm.run(*asked, folder=tmp_path, jobs=2)
    assert done.returncode == ExitCode.DIFFERS
    report = json.loads(done.stdout)
    assert report == json.loads((run / "run.json").read_text())
    (found,) = report["located"]  # of a check's cases the first
    account = json.loads((run / found["file"]).read_text())
    assert (found["case"], account["case"]) == ("c000", "c000")
    assert account["cause"]["kind"] == "reduction order"
    assert account["words"] == found["words"]
    assert len(found["words"].splitlines()) == 5
    assert all(line in done.stderr for line in found["words"].splitlines())


SOLE: dict[str, object] = {"differing_tokens": 1, "max_ulp": 1, "first_divergence": DIVERGENCE}
REASONS: dict[str, tuple[dict[str, object], str, float, str]] = {
    "another relation": (SOLE, "decoder", 20.0, "no two paths of the run"),
    "agreed in one process": ({"recheck": "differs"}, "decoder", 20.0, "no two paths of the run"),
    "a server": (SOLE, "server", 20.0, "a server shows no operations of its model"),
    "recordings": (SOLE, "sides", 20.0, "recorded rollouts have no operations"),
    "no time": (SOLE, "decoder", 0.01, "the 0.01 s of --locate-budget ended before"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_not_located_says_why(name: str, tmp_path: Path) -> None:
    changes, kind, budget, words = REASONS[name]
    relation = "accuracy" if name == "another relation" else "invariance"
    bad = case(verdict="differs", reason="bits differ", **changes)
    whole = whole_report("differs", bad, subject={"kind": kind})
    red = whole.model_copy(
        update={"checks": (whole.checks[0].model_copy(update={"relation": relation}),)}
    )
    with here(False):
        (found,) = located(red, load(turned(tmp_path)), tmp_path, "cpu", budget, str)
    assert words in found.words
    assert found.file is None
    assert found.words in render(whole.model_copy(update={"located": (found,)}))


@pytest.mark.parametrize("kept", ['{"words": ', '{"case": "c000"}', "\x80"])
def test_an_account_that_cannot_be_read_changes_no_verdict(kept: str, tmp_path: Path) -> None:
    bad = case(verdict="differs", reason="bits differ", **SOLE)
    file = tmp_path / "located" / f"{bad['id']}.json"
    file.parent.mkdir()
    file.write_text(kept, encoding="latin-1")
    with here(False):
        (found,) = located(
            whole_report("differs", bad), load(turned(tmp_path)), tmp_path, "cpu", 0.01, str
        )
    assert "the 0.01 s of --locate-budget ended before" in found.words
    assert found.file is None


def test_what_holds_is_not_located(tmp_path: Path) -> None:
    held = whole_report("holds", case())
    with here(False):
        assert located(held, load(turned(tmp_path)), tmp_path, "cpu", 20.0, str) == ()


def test_an_interruption_while_cases_are_located_says_that_the_verdict_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(locate_red, "located", stopped)
    run = tmp_path / "run"
    assert main(["verify", str(turned(tmp_path)), "--run-dir", str(run)]) == ExitCode.INTERRUPTED
    told = capsys.readouterr().err
    assert (
        f"the verdict, DIFFERS, is written in {run}; locate with: kvparity locate {run} c000"
        in told
    )
    assert "--resume" not in told
    assert json.loads((run / "run.json").read_text())["verdict"] == "differs"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--no-locate", "--locate-budget", "3"], ExitCode.USAGE, "leave out one of them"),
        (["--locate-budget", "-3"], ExitCode.USAGE, "--locate-budget -3: expected seconds"),
        (["--no-locate"], ExitCode.DIFFERS, ""),
        ([], ExitCode.DIFFERS, "not located: the subject ran in the process that asked"),
    ],
)
def test_the_options(
    options: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", str(turned(tmp_path)), "--run-dir", str(tmp_path / "run"), *options]
    assert main(command) == code
    printed = "".join(capsys.readouterr())
    assert said in printed
    assert ("not located" in printed) is said.startswith("not located")

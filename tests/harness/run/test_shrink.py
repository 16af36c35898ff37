"""A red case of a run made smaller: what is found, what is kept, and where nothing can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import semantic_pairs
import torch
from pair_contracts import PAIRS
from toy import Toy
from toy_verification import verify

import kvparity
from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.core.lock import held
from kvparity.plan.cases import make
from kvparity.run.failing import FailingCases, kind_of
from kvparity.run.kept import Since
from kvparity.run.shrink import Shrunk, shrink
from kvparity.smallest.one_case import OneCase, of_case
from kvparity.smallest.reductions import SmallerCase
from kvparity.smallest.search import TriedCase
from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.linter import lint
from kvparity_contracts.loader import load
from kvparity_contracts.steps import WrittenSteps

PAIR = f"""\
import importlib.util

_spec = importlib.util.spec_from_file_location("own_pairs", {str(PAIRS)!r})
_pairs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pairs)
prefill = _pairs.prefill


def decode(q, k_cache, v_cache, *, kv_lens, scale):
    k, v = k_cache.clone(), v_cache.clone()
    for i, n in enumerate(kv_lens.tolist()):
        if 6 <= n < 16:  # another order
            k[i, :n], v[i, :n] = k[i, :n].flip(0), v[i, :n].flip(0)
        if n >= 17:  # a key too few
            k[i, 3] = k[i, 4]
    return _pairs.decode(q, k, v, kv_lens=kv_lens, scale=scale)
"""
CONTRACT = """\
version: 1
name: red
subject:
  kind: attention
  prefill: pair.py:prefill
  decode: pair.py:decode
  heads: {query: 4, kv: 2, dim: 8}
numerics: {execution: float32}
workloads:
  - {name: w, prompt_tokens: [2, 20, 9], generate: 4}
  - {name: short, prompt_tokens: [2], generate: 3}
checks:
  - {name: same bits, relation: invariance, paths: [decode, batched]}
controls: [stale-slot]
"""


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("red")
    (folder / "pair.py").write_text(PAIR)
    (folder / "red.yaml").write_text(CONTRACT)
    run = folder / "run"
    assert (
        main(
            [
                "verify",
                str(folder / "red.yaml"),
                "--run-dir",
                str(run),
                "--jobs",
                "1",
                "--no-locate",
            ]
        )
        == 1
    )
    return run


def shrunk(capsys: pytest.CaptureFixture[str], *given: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["shrink", *given, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_smallest_case_stands_beside_one_that_passes(
    red: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = shrunk(capsys, str(red), "c001", "--budget", "1e-9")
    assert none[0] == 5
    assert (none[1]["minimal"], none[1]["run_now"]) == (False, 1)
    code, found = shrunk(capsys, str(red), "c001")
    assert code == 0
    assert found["complete"] is True
    # With 6 to 15 keys bits differ, too, and that is another failure.
    assert found["failure"] == "invariance: out, values of the path"
    assert found["edge"] == "fails with 17 keys, passes with 16"
    smallest = load(found["contract"]).contract
    assert smallest.workloads[0].prompt_tokens == (16,)
    assert smallest.workloads[0].generate == 2
    assert smallest.subject.heads.query == 1  # type: ignore[union-attr] # a pair
    assert str(smallest.path_checks[0].paths[0]) == "decode"
    again = shrunk(capsys, str(red), "c001")[1]
    assert again["run_now"] == 3  # the case itself, and at the end both that are shown
    assert again["smallest"] == found["smallest"]
    kept = red / "shrink" / "c001.jsonl"
    # And a head; the start has no line, nor have both that are rerun at the end.
    assert len(kept.read_text().splitlines()) == found["run_now"] - 2


def test_what_is_pasted_is_valid_and_red(red: Path, tmp_path: Path) -> None:
    found = kvparity.shrink(red, "c000")
    assert found.smallest is not None
    text = found.text()
    assert found.edge in text
    assert "1-minimal" in text
    assert text.endswith(f"kvparity verify {found.file}")
    file = tmp_path / "pasted.yaml"
    file.write_text(text[text.index("version: 1") : text.index("\n\nkvparity verify")])
    assert load(file).contract == found.smallest.contract
    assert all(each.level == "warning" for each in lint(load(file)))
    report = kvparity.verify(file, run_dir=tmp_path / "run", jobs=1)
    assert [case.verdict for case in report.cases] == ["differs"]
    assert found.passing is not None
    assert found.complete
    assert not replace(found, passing=None).complete
    assert not replace(found, minimal=False).complete
    assert not replace(found, repeats=False).complete
    file.write_text(found.passing.case.text())
    beside = kvparity.verify(file, run_dir=tmp_path / "beside", jobs=1)
    assert [case.verdict for case in beside.cases] == ["holds"]


def test_a_case_that_does_not_differ_is_not_made_smaller(
    red: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case, words in (("c002", "'holds' in this run"), ("c999", "has no case 'c999'")):
        assert main(["shrink", str(red), case]) == 2
        assert words in capsys.readouterr().err
    with held(red, "verify"):
        assert main(["shrink", str(red), "c000"]) == 2
    assert f"another kvparity runs in {red}: verify, pid " in capsys.readouterr().err
    assert main(["shrink", str(red), "c000", "--budget", "nan"]) == 2
    assert "budget nan: expected seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("off", "kind"), [(1e-7, "order"), (1e-2, "values of the path")], ids=["rounding", "wrong"]
)
def test_a_side_is_wrong_where_rounding_does_not_take_it(off: float, kind: str) -> None:
    """A row of the other side may be as near to float64 as it likes by chance."""
    exact = torch.linspace(-1.0, 1.0, 68, dtype=torch.float64)[None]
    rows = (exact + 1e-12).float(), (exact + off).float()
    pair = AttentionSubject(
        pair=Pair.of(semantic_pairs.prefill, semantic_pairs.decode, "prefill", "decode"),
        heads=HeadCounts(4, 1, 16),
        scale=0.25,
        execution=torch.float32,
        kv_cache=torch.float32,
        device=torch.device("cpu"),
        seed=0,
    )
    assert kind_of(pair, *rows, exact) == kind


def test_an_interruption_says_how_to_go_on(
    red: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: FailingCases, small: OneCase) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FailingCases, "look", stopped)
    assert main(["shrink", str(red), "c000"]) == 130
    assert "interrupted; what was tried is kept" in capsys.readouterr().err


BESIDE: dict[str, tuple[str, str, str, str]] = {
    "a token": ("tokens of prompt 0", "20", "19", "fails with 23 keys, passes with 22"),
    "a sequence": ("sequences", "2", "1", "fails with sequences 2, passes with 1"),
    "a cut": ("steps", "with a cut", "without a cut", "fails with a cut, passes without a cut"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_the_edge_names_what_was_taken_away(name: str, red: Path) -> None:
    what, before, after, words = BESIDE[name]
    contract = load(red.parent / "red.yaml").contract
    case = of_case(contract, make(contract).units[0].cases[0], red.parent, "")
    other = case.changed({("workloads", 0, "prompt_tokens"): [2, 19, 9]})
    assert other is not None
    passing = SmallerCase(what, before, after, other)
    found = Shrunk("c000", "", "", case, case, passing, True, True, 2, 2, 0.0, red, Since((), ()))
    assert found.edge == words


@pytest.mark.parametrize("which", ["smallest", "passing"])
def test_what_is_so_by_chance_is_not_shown(
    which: str, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end both cases are rerun: here one of them gives another answer then."""
    sure = kvparity.shrink(red, "c001")
    assert sure.repeats
    assert sure.smallest is not None
    assert sure.passing is not None
    drawn = sure.smallest if which == "smallest" else sure.passing.case
    look = FailingCases.look

    def by_chance(self: FailingCases, small: OneCase) -> TriedCase:
        found = look(self, small)
        return replace(found, outcome="void") if small.key == drawn.key else found

    monkeypatch.setattr(FailingCases, "look", by_chance)
    found = kvparity.shrink(red, "c001")
    assert not found.complete
    assert "not deterministic: a case gave a different answer when rerun" in found.text()
    assert "1-minimal" not in found.text()


def test_where_nothing_differs_now_that_is_said(red: Path, tmp_path: Path) -> None:
    pair = red.parent / "pair.py"
    pair.write_text(PAIR.replace("6 <= n", "600 <= n").replace("n >= 17", "n >= 600"))
    try:
        found = kvparity.shrink(red, "c000")
    finally:
        pair.write_text(PAIR)
    assert found.smallest is None
    assert not found.complete
    assert "nothing differs now" in found.text()


def test_a_drawn_schedule_is_left_with_the_one_step_that_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["random(6)"]}],
        "workloads": [{"name": "w", "prompt_tokens": [3, 17, 6], "generate": 3}],
        "numerics": {"execution": "float32", "temperatures": [1.0]},
        "controls": ["stale-slot"],
    }
    verify(tmp_path, monkeypatch, Toy("batch-dependent"), **changes)
    lines = (tmp_path / "run" / "cases.jsonl").read_text().splitlines()
    case = next(each["id"] for each in map(json.loads, lines) if each["verdict"] == "differs")
    found = shrink(load(tmp_path / "contract.yaml"), tmp_path / "run", case, "cpu")
    assert found.smallest is not None
    assert found.complete
    steps = WrittenSteps.parse(found.smallest.path.steps)
    assert steps.sequences == 2
    assert max(map(len, steps.steps)) == 2
    assert sum(map(len, steps.steps)) <= 4
    monkeypatch.setattr("kvparity.run.shrink.LONGEST", 10)
    with pytest.raises(UnsupportedError, match=r"\(drawn\(\d\)\) have \d+ characters"):
        shrink(load(tmp_path / "contract.yaml"), tmp_path / "run", case, "cpu")

"""Which paths fresh processes compute again, within what they may cost, and what they found."""

from __future__ import annotations

from typing import Any

import pytest
import toy
from run_documents import unchecked

from kvparity.plan.cases import make
from kvparity.plan.paths import build
from kvparity.plan.results import CaseLine
from kvparity.plan.workload import fill
from kvparity.report.lines import FreshRows, UnitLine
from kvparity.run.recheck import selection
from kvparity.run.recheck.choice import chosen, needed, tokens_of
from kvparity.run.recheck.outcome import Outcome, judged, outcome
from kvparity.run.recheck.selection import Selection, select

CONTRACT = toy.contract()
WORK = make(CONTRACT)
HOLDING = {case.id: "holds" for unit in WORK.units for case in unit.cases}


def costs() -> list[tuple[int, str, str]]:
    """(tokens, unit, path) of every part, the cheapest first, and in the plan's order."""
    found = []
    for unit in WORK.units:
        model = next(each for each in CONTRACT.workloads if each.name == unit.workload)
        prompts = fill(model, seed=3, vocab=0)
        cases = [c for c in unit.cases if c.relation in ("invariance", "accuracy")]
        for path in dict.fromkeys(p for c in cases for p in (c.path, c.reference) if p):
            whole = build(path, prompts, seed=3)
            part = needed(whole, chosen(whole, seed=3, unit=unit.id, path=str(path)))
            found.append((tokens_of(part), unit.id, str(path)))
    return sorted(found, key=lambda item: item[0])


def asked(found: Selection) -> set[tuple[str, str]]:
    return {(request.unit.id, str(path)) for request in found.requests for path in request.paths}


@pytest.mark.parametrize("paths", [1, 2, 5, 8])
@pytest.mark.parametrize("spare", [0, 1])
def test_as_many_of_the_cheapest_paths_as_fit_exactly(
    paths: int, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "SHARE", 0.0)
    monkeypatch.setattr(selection, "FLOOR", sum(cost for cost, *_ in costs()[:paths]) - spare)
    found = select(CONTRACT, WORK.units, HOLDING)
    assert asked(found) == {(unit, path) for _, unit, path in costs()[: paths - spare]}
    assert (found.paths, found.of) == (paths - spare, len(costs()))


def test_a_share_of_all_that_the_paths_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = 0
    for unit in WORK.units:
        model = next(each for each in CONTRACT.workloads if each.name == unit.workload)
        prompts = fill(model, seed=3, vocab=0)
        for path in {p for c in unit.cases for p in (c.path, c.reference) if p}:
            whole += sum(
                s.stop - s.start for step in build(path, prompts, seed=3).schedule for s in step
            )
    spent = sum(cost for cost, *_ in costs()[:4])
    monkeypatch.setattr(selection, "FLOOR", 0)
    for more, paths in ((1e-9, 4), (-1e-9, 3)):
        monkeypatch.setattr(selection, "SHARE", spent / whole + more)
        assert select(CONTRACT, WORK.units, HOLDING).paths == paths


@pytest.mark.parametrize(("tokens", "paths"), [(256, 1), (257, 0), (128, 2), (42, 6), (43, 5)])
def test_a_small_run_is_looked_at_for_256_tokens(
    tokens: int, paths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "tokens_of", lambda plan: tokens)
    found = select(CONTRACT, WORK.units[:1], HOLDING)
    assert (found.paths, found.of) == (paths, 6)


def test_a_large_run_is_looked_at_for_a_tenth_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "tokens_of", lambda plan: 10_000)
    many = WORK.units * 5
    found = select(CONTRACT, many, HOLDING)
    assert found.paths == found.of // 10


@pytest.mark.parametrize("relation", ["cache", "trace", "liveness"])
def test_what_another_relation_compares_is_no_reason_to_look(
    relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of a path, and not for more tokens: whatever they may cost."""
    monkeypatch.setattr(selection, "FLOOR", 10**9)
    bits = {"name": "bits", "relation": "invariance", "paths": ["batched"]}
    other = {"name": "other", "relation": relation, "paths": ["mixed"]}
    alone, both = (toy.contract(checks=checks) for checks in ([bits], [bits, other]))
    verdicts = {case.id: "holds" for unit in make(both).units for case in unit.cases}
    found = select(both, make(both).units, verdicts)
    assert {path for _, path in asked(found)} == {"batched", "prefill"}
    monkeypatch.setattr(selection, "FLOOR", 0)
    monkeypatch.setattr(selection, "SHARE", 0.5)
    monkeypatch.setattr(selection, "tokens_of", lambda plan: 10)
    assert [select(c, make(c).units, verdicts).paths for c in (alone, both)] == [found.of // 2] * 2


@pytest.mark.parametrize("verdict", ["differs", "void", "error", None])
def test_only_paths_of_a_case_that_holds_are_looked_at(
    verdict: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing rests on the others; a reference is looked at for each case that it gives."""
    monkeypatch.setattr(selection, "FLOOR", 10**9)
    (unit, *_), (kept, *_) = WORK.units, WORK.units[0].cases
    verdicts = {case.id: verdict for case in unit.cases if verdict} | {kept.id: "holds"}
    found = select(CONTRACT, [unit], verdicts)
    assert asked(found) == {(unit.id, str(path)) for path in (kept.path, kept.reference) if path}
    assert select(CONTRACT, [unit], verdicts | {kept.id: verdict or "void"}).requests == ()


def test_the_paths_of_one_side_go_together_and_the_references_alone() -> None:
    found = select(CONTRACT, WORK.units, HOLDING)
    for request in found.requests:
        names = set(map(str, request.paths))
        assert names == {"prefill"} or "prefill" not in names
    assert ["prefill" in map(str, r.paths) for r in found.requests[:2]] == [False, True]
    assert [r.unit.id for r in found.requests] == [u.id for u in WORK.units for _ in range(2)]


def test_paths_and_rows_of_all_answers_are_counted() -> None:
    rows: tuple[Any, ...] = tuple((0, p, "0x" + "a" * 16, ("0x1",)) for p in (3, 5))
    recorded = unchecked(
        UnitLine, {"unit": "a", "rows": {"decode": rows}}, {"unit": "b", "rows": {}}
    )
    answers = [
        FreshRows(unit="a", rows={"decode": rows, "mixed": rows[:1]}),
        FreshRows(unit="b", rows={"decode": rows[:1]}),
    ]
    found = outcome(Selection((), 3, 7), recorded, answers)
    assert (found.paths, found.of, found.rows, found.skipped) == (3, 7, 4, None)
    differing = [
        {"unit": unit, "path": path, "row": "position 3 of sequence 0"}
        for unit, path in (("a", "mixed"), ("b", "decode"))
    ]
    assert found.entry().document() == {
        "paths": 3, "of": 7, "rows": 4, "differing": differing, "skipped": None,
    }  # fmt: skip


def test_a_case_that_did_not_hold_keeps_its_verdict() -> None:
    lines = unchecked(CaseLine, *({"id": name, "verdict": "void"} for name in HOLDING))
    found = Outcome({(unit.id, "prefill"): "row" for unit in WORK.units})
    assert judged(WORK.units, lines, found) == lines


def test_where_nothing_was_looked_at_nothing_is_counted() -> None:
    counts = {"paths": 0, "of": 0, "rows": 0, "differing": [], "skipped": "why"}
    assert Outcome({}, skipped="why").entry().document() == counts

"""How a run is carried out: which work is asked for, in which order, and what a report is made of.

Nothing is computed: what runs work, and what lies in the folder, is made up here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from carrying import Folder, contract, holding
from run_documents import unchecked, unchecked_controls

from kvparity.core.errors import SubjectError
from kvparity.plan.cases import Work, make
from kvparity.plan.kernel_cases import KernelControl, Unplanted
from kvparity.plan.results import CaseLine
from kvparity.report.lines import FreshRows, Sequence, UnitLine
from kvparity.report.run_dir import Evidence
from kvparity.run import verify as running
from kvparity.run import worker
from kvparity.run.recheck.outcome import Outcome
from kvparity.run.worker import Job
from kvparity_contracts.contract import Contract


class Pool:
    """Answers each task in turn, and keeps what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), [()]
        self.asked.clear()
        self.used = self  # of the processes that a run has, these

    def run(self, tasks: Iterable[Any]) -> Iterator[Any]:
        self.asked = [(task.function, *task.arguments) for task in tasks]
        yield from self.answers[: len(self.asked)]


def job(of: Contract, folder: Path) -> Job:
    return Job(of, folder, "cpu", folder)


def line(unit: str, *ids: list[int]) -> UnitLine:
    (found,) = unchecked(
        UnitLine, {"unit": unit, "sequences": unchecked(Sequence, *({"ids": it} for it in ids))}
    )
    return found


def cases(
    work: Work, of: Contract, path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, **found: Any
) -> tuple[list[str], dict[str, Any], Folder]:
    folder = holding(monkeypatch, **found)
    ticked: list[str] = []
    tokens = running._cases(cast(Any, pool), job(of, path), work, Evidence(path), ticked.append)
    return ticked, tokens, folder


def test_all_work_is_asked_for_kernels_first_and_then_the_longest_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract()
    work = make(own)
    pool = Pool("x" * 300, "second", "third", "fourth", "fifth")
    ticked, tokens, folder = cases(
        work, own, tmp_path, pool, monkeypatch, units=[[], [line("u", [1, 2], [3])]]
    )
    assert [task[0] for task in pool.asked] == [worker.do_kernel_case] * 2 + [worker.do_unit] * 3
    assert [task[2] for task in pool.asked[:2]] == list(work.kernel_cases)
    # A step of decode costs about as much as 64 tokens of prefill beside its own length.
    assert [task[2].workload for task in pool.asked[2:]] == ["long", "short", "middle"]
    assert all(task[3:] == (None, frozenset()) for task in pool.asked[2:])
    assert ticked == ["x" * 200, "second", "third", "fourth", "fifth"]
    assert tokens == {"u": [[1, 2], [3]]}
    assert folder.whole_seen == 1


def test_what_is_finished_is_told_and_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract()
    work = make(own)
    done, interrupted, without_tokens = work.units
    first, second = work.kernel_cases
    ids = [case.id for case in (*done.cases, *without_tokens.cases)]
    ids += [first.id, interrupted.cases[0].id]
    lines = [line(done.id, [1]), line(interrupted.id, [2, 3])]
    pool = Pool(second.id, interrupted.id, without_tokens.id)
    assert len(interrupted.cases) > 1
    ticked, _, _ = cases(
        work, own, tmp_path, pool, monkeypatch,
        cases=unchecked(CaseLine, *({"id": each} for each in ids)), units=lines,
    )  # fmt: skip
    assert [task[2] for task in pool.asked] == [second, interrupted, without_tokens]
    # What was drawn before is drawn no second time, and what is finished is handed on.
    assert [task[3] for task in pool.asked[1:]] == [[[2, 3]], None]
    assert {task[4] for task in pool.asked[1:]} == {frozenset(ids)}
    assert ticked == [first.id, done.id, second.id, interrupted.id, without_tokens.id]


def controls(
    own: Contract, path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch, **found: Any
) -> tuple[list[str], tuple[Unplanted, ...], Work]:
    holding(monkeypatch, **found)
    work = make(own)
    tokens: Any = {unit.id: f"tokens of {unit.workload}" for unit in work.units}
    ticked: list[str] = []
    left = running._controls(
        cast(Any, pool), job(own, path), work, Evidence(path), tokens, ticked.append
    )
    return ticked, left, work


def test_every_control_is_asked_for_what_takes_longest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract()
    every = make(own).every_control
    pool = Pool(*({"name": each.control, "relation": each.relation} for each in reversed(every)))
    ticked, left, work = controls(own, tmp_path, pool, monkeypatch)
    assert [task[2] for task in pool.asked] == list(reversed(every))
    for function, _, control, *rest in pool.asked:
        kernels = isinstance(control, KernelControl)
        assert function is (worker.do_kernel_control if kernels else worker.do_control)
        assert rest == ([] if kernels else [f"tokens of {control.workload}"])
    assert {isinstance(each, KernelControl) for each in every} == {True, False}
    assert ticked == [each.control for each in reversed(every)]
    assert left == work.unplanted


@pytest.mark.parametrize("asked", [True, False])
def test_controls_that_ran_are_told_and_those_that_could_not_are_left(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = make(contract()).every_control
    names = [each.control for each in every]
    own = contract(controls=names) if asked else contract()
    every = make(own).every_control
    ran, *others = reversed(every)
    gone = others[0], others[-1]
    answers = [
        {"name": each.control, "relation": each.relation}
        | ({"unplanted": f"no {each.control}"} if each in gone else {})
        for each in others
    ]
    pool = Pool(*answers)
    found = unchecked_controls(
        {"name": ran.control, "relation": ran.relation},
        {"name": others[0].control, "relation": "another relation"},
    )
    ticked, left, work = controls(own, tmp_path, pool, monkeypatch, controls=found)
    assert [task[2] for task in pool.asked] == others
    assert ticked == [ran.control, *(each.control for each in others)]
    wanted = [  # in the order of the plan, not of the answers
        Unplanted(each.control, each.relation, f"no {each.control}", asked)
        for each in every if each in gone
    ]  # fmt: skip
    assert left == (*work.unplanted, *wanted)


def test_fresh_processes_are_asked_where_the_subject_did_not_run_in_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = contract()
    work = make(own)
    holds = unchecked(
        CaseLine,
        *({"id": case.id, "verdict": "holds"} for unit in work.units for case in unit.cases),
    )
    holding(monkeypatch, cases=holds, units=["lines"])
    tokens: Any = {unit.id: f"tokens of {unit.workload}" for unit in work.units}
    asked: list[Any] = []
    monkeypatch.setattr(running, "outcome", lambda *given: asked.append(given) or "found")
    pool = Pool(*[{"unit": "u", "rows": {}}] * 9)

    def found() -> Any:
        given = cast(Any, pool), job(own, tmp_path), work, Evidence(tmp_path), tokens
        return running._recheck(*given)

    skipped = found()
    assert isinstance(skipped, Outcome)
    assert skipped.skipped is not None
    assert (pool.asked, asked) == ([], [])
    monkeypatch.setattr(running, "inside", lambda: False)
    assert found() == "found"
    assert pool.asked
    for function, _, unit, paths, own_tokens in pool.asked:
        assert function is worker.do_recheck
        assert paths
        assert own_tokens == f"tokens of {unit.workload}"
    ((selection, lines, rows),) = asked
    assert [request.unit for request in selection.requests] == [task[2] for task in pool.asked]
    assert (lines, rows) == (["lines"], [FreshRows(unit="u", rows={})] * len(pool.asked))
    pool.answers[0] = {"unit": "u", "rows": "mine"}
    with pytest.raises(SubjectError, match=r"an answer that is not kvparity's: rows is 'mine'"):
        found()

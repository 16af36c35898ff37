"""Controls planted in the toy: each is caught, and without its defect nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toy
from toy import Toy

from kvparity.controls.base import PlantedSession, PlantedSubject, unchanged
from kvparity.controls.table import ELSEWHERE, HANDOVERS, PLANTS, RECOMPILED, Planting, planting
from kvparity.plan.cases import ControlRun, make
from kvparity.plan.schedule import Layout, Member, Plan
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run import control_run
from kvparity.run.unit import Setting, Tokens, run_unit
from kvparity.subjects.base import Subject, UnsupportedError
from kvparity_contracts.controls import CONTROLS

AUDIT = ("audit",)
PLANNED = [each.control for each in make(toy.contract()).controls]


def reaches(name: str) -> bool:
    """Whether the defect can be planted in a subject that is no decoder of ours."""
    try:
        planting(CONTROLS[name]).rollout(Toy())
        planting(CONTROLS[name]).rescore(Toy())
    except UnsupportedError:
        return False
    return True


PLANTABLE = [name for name in PLANNED if reaches(name)]
Work = tuple[Setting, dict[str, ControlRun], dict[str, Tokens]]


@pytest.fixture(scope="module")
def work() -> Work:
    """The toy under the small contract, the controls that its plan has, and the drawn tokens."""
    setting = toy.setting()
    plan = make(setting.contract)
    tokens = {}
    for unit in plan.units:
        found = run_unit(setting, unit, tokens=None, done=frozenset(), emit=lambda *_: None)
        tokens[unit.workload] = found.tokens
    return setting, {each.control: each for each in plan.controls}, tokens


def planted(work: Work, name: str) -> tuple[bool, str]:
    """Run a control in a place of its own plan."""
    setting, runs, tokens = work
    return toy.run_control(setting, runs[name], tokens[runs[name].workload])


def test_the_plan_has_controls_of_sessions_and_scores(work: Work) -> None:
    assert set(work[1]) == set(PLANNED)
    assert set(PLANTABLE) == {
        "position-off-by-one", "stale-slot", "padding-leaks", "narrow-cache",
        "temperature-ignored", "log-of-softmax", "retokenised", "unequal-lengths", "wrong-input",
        "decode-at-position-zero", "padding-shifts-positions", "padding-mask-skipped-alone",
        "raw-rollout-logprobs", "scaled-logprobs", "top-p-renormalised", "inlined-logprob",
        "sampler-by-batch", "cached-rows-uninitialised",
    }  # fmt: skip


@pytest.mark.parametrize("name", PLANTABLE)
def test_a_planted_defect_is_caught(work: Work, name: str) -> None:
    caught, seen = planted(work, name)
    assert caught, seen
    assert seen.startswith(
        "void" if CONTROLS[name].expect == "void" else ("bits", "the", "differs", "NaN")
    )


@pytest.mark.parametrize("name", PLANTABLE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_nothing_planted_is_not_caught(
    work: Work, name: str, monkeypatch: pytest.MonkeyPatch, wrapped: bool
) -> None:
    def through(subject: Subject) -> Subject:
        return PlantedSubject(subject, lambda s, m, layout: PlantedSession(s.session(m, layout)))

    nothing = Planting(through, through) if wrapped else Planting()
    monkeypatch.setattr(control_run, "planting", lambda row: nothing)
    caught, seen = planted(work, name)
    assert not caught, seen


@pytest.mark.parametrize("name", [name for name in PLANNED if name not in PLANTABLE])
def test_a_defect_out_of_reach_is_said(work: Work, name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"of this subject|the reference decoder alone"):
        planted(work, name)


def test_a_control_that_no_check_covers_is_run_clean_first(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, runs, tokens = work
    run = replace(runs["stale-slot"], covered=False)
    own = tokens[run.workload]
    assert toy.run_control(setting, run, own)[0]
    # A subject whose decode differs by itself: the defect would be seen, and is not what is seen.
    other = Setting(setting.contract, Toy("digest-only"))
    caught, seen = toy.run_control(other, run, own)
    assert not caught
    assert seen.startswith("it fails without the defect, too: differs: bits differ")
    assert toy.run_control(other, replace(run, covered=True), own)[0]


@pytest.mark.parametrize(
    ("name", "clean", "caught"),
    [
        ("stale-slot", Comparison("holds", "clean", tokens=3), True),
        ("stale-slot", Comparison("void", "clean", tokens=3), True),  # one path on both sides
        ("stale-slot", Comparison("void", "clean", tokens=0), False),
        ("stale-slot", Comparison("holds", "clean", tokens=0), False),
        ("unequal-lengths", Comparison("holds", "clean", tokens=3), True),
        ("unequal-lengths", Comparison("void", "clean", tokens=3), False),
        ("unequal-lengths", Comparison("differs", "clean", tokens=3), False),
    ],
)
def test_a_clean_run_must_have_compared_something_and_not_show_the_same(
    work: Work, name: str, clean: Comparison, caught: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, runs, _ = work
    found = [clean, Comparison(CONTROLS[name].expect, "planted", tokens=3)]
    monkeypatch.setattr(control_run, "compare", lambda *_: found.pop(0))
    run = replace(runs[name], covered=False)
    planted = control_run.plant(setting, run, [])
    assert planted.caught == caught
    assert ("it fails without the defect, too" in planted.seen) == (not caught)


def test_void_with_and_without_the_defect_catches_nothing(work: Work) -> None:
    setting, runs, tokens = work
    run = replace(runs["unequal-lengths"], covered=False)
    own = tokens[run.workload]
    assert toy.run_control(setting, run, own)[0]
    never = Setting(setting.contract, Toy("never-decodes"))
    caught, seen = toy.run_control(never, run, own)
    assert not caught
    assert seen.startswith("it fails without the defect, too: void")


def test_only_the_temperature_that_is_ignored_shows_it(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, runs, tokens = work
    run = runs["temperature-ignored"]
    assert (run.temperature, run.column) == (0.7, 1)
    at_one = replace(run, temperature=1.0, column=0)
    assert not toy.run_control(setting, at_one, tokens[run.workload])[0]


def test_a_defect_of_rounding_is_looked_for_in_the_prompt_too(work: Work) -> None:
    setting, runs, tokens = work
    run = runs["log-of-softmax"]
    caught, seen = toy.run_control(setting, run, tokens[run.workload])
    assert caught
    known = len(tokens[run.workload][run.sequences[0]])
    assert seen.endswith(f"of {known - 1} tokens")


@pytest.mark.parametrize(
    ("vocab", "last", "refused"), [(63, 7, True), (64, 7, False), (40, 63, True)]
)
def test_a_small_vocabulary_has_no_question_mark(
    work: Work, vocab: int, last: int, refused: bool
) -> None:
    """Ids of one sequence are enough: where the last is a question mark, it becomes no other."""
    _, runs, _ = work
    small = Toy()
    small.vocab, small.head = vocab, small.head[:vocab]
    run = replace(runs["retokenised"], workload="w", sequences=(0, 1), generate=4)
    ids = toy.contract(
        workloads=[{"name": "w", "prompts": [[1, 2, 3], [1, 2, 3]], "generate": 4}],
        checks=[{"name": run.check, "relation": "invariance", "paths": ["decode"]}],
    )
    tokens = [[1, 2, 3, 4, 5, 6, last], [1, 2, 3, 4, 5, 6, 7]]
    if refused:
        with pytest.raises(UnsupportedError, match="all ASCII bytes"):
            toy.run_control(Setting(ids, small), run, tokens)
    else:
        assert toy.run_control(Setting(ids, small), run, tokens)[0]


MEMBERS = (Member("a", 6, 3), Member("b", 4, 1))


def test_a_planted_subject_is_otherwise_the_same() -> None:
    inner = Toy("no-pages")
    outer = PlantedSubject(inner)
    assert (outer.vocab, outer.max_positions, outer.device) == (256, 512, inner.device)
    assert outer.describe() == inner.describe()
    paged = Plan(MEMBERS, (), Layout(page=4))
    assert outer.unsupported(paged) == inner.unsupported(paged) == "the toy has no pages"
    found = outer.oracle(MEMBERS[0], [1, 2, 3, 4, 5, 6], range(2, 5))
    assert torch.equal(found, inner.oracle(MEMBERS[0], [1, 2, 3, 4, 5, 6], range(2, 5)))


def test_every_row_is_planted_and_nothing_else_is() -> None:
    """What each table plants follows from the rows of the contracts."""
    rows = CONTROLS.values()
    of_subjects = {
        row.name
        for row in rows
        if row.side not in ("handover", "sides", "ranks") and row.relations != AUDIT
    }
    assert of_subjects == set(PLANTS)
    assert {row.name for row in rows if row.side == "handover"} == set(HANDOVERS)
    audited = {row.name for row in rows if "audit" in row.relations}
    assert audited == {*RECOMPILED, *ELSEWHERE}


def test_a_defect_is_planted_on_the_side_that_its_row_names() -> None:
    seen = set()
    for row in CONTROLS.values():
        if row.relations == AUDIT or row.side in ("sides", "ranks"):
            continue
        given = planting(row)
        differ = {
            "rollout": given.rollout is not unchanged,
            "rescore": given.rescore is not unchanged,
            "handover": given.handover([1, 200, 3], 1) != [1, 200, 3],
        }
        planted = {side for side, differs in differ.items() if differs}
        assert planted == ({"rollout", "rescore"} if row.side == "both" else {row.side}), row.name
        seen.add(row.side)
    assert seen == {"rollout", "rescore", "both", "handover"}

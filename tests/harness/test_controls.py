"""Controls planted in the toy: each is caught, and without its defect nothing is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import toy
from toy import Toy

from kvparity.compare import Comparison
from kvparity.controls import running
from kvparity.controls.base import Control, PlantedSession, PlantedSubject, same_ids, unchanged
from kvparity.controls.cache import narrow_cache, stale_slot
from kvparity.controls.sequence import retokenised
from kvparity.controls.table import CONTROLS
from kvparity.plan import ControlRun, make
from kvparity.record import Record, run
from kvparity.schedule import Layout, Member, Plan, Span, Step
from kvparity.subject import Subject, UnsupportedError
from kvparity.unit import Setting, Tokens, run_unit

PLANNED = [each.control for each in make(toy.contract()).controls]


def reaches(name: str) -> bool:
    """Whether the defect can be planted in a subject that is no decoder of ours."""
    try:
        CONTROLS[name].rollout(Toy())
        CONTROLS[name].rescore(Toy())
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
        tokens[unit.workload] = [list(s["ids"]) for s in found["sequences"]]
    return setting, {each.control: each for each in plan.controls}, tokens


def planted(
    work: Work, name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[bool, str]:
    """Run a control, changed or not, in a place of its own plan."""
    setting, runs, tokens = work
    control = replace(CONTROLS[name], **changes)
    monkeypatch.setattr(running, "CONTROLS", CONTROLS | {name: control})
    return running.run_control(setting, runs[name], tokens[runs[name].workload])


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
def test_a_planted_defect_is_caught(work: Work, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    caught, seen = planted(work, name, monkeypatch)
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

    nothing = through if wrapped else unchanged
    caught, seen = planted(
        work, name, monkeypatch, rollout=nothing, rescore=nothing, rescore_ids=same_ids, drop=0
    )
    assert not caught, seen


@pytest.mark.parametrize("name", [name for name in PLANNED if name not in PLANTABLE])
def test_a_defect_out_of_reach_is_said(
    work: Work, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match=r"of this subject|of ours|of this project"):
        planted(work, name, monkeypatch)


def test_a_control_that_no_check_covers_is_run_clean_first(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, runs, tokens = work
    run = replace(runs["stale-slot"], covered=False)
    own = tokens[run.workload]
    assert running.run_control(setting, run, own)[0]
    # A subject whose decode differs by itself: the defect would be seen, and is not what is seen.
    other = Setting(setting.contract, Toy("digest-only"))
    caught, seen = running.run_control(other, run, own)
    assert not caught
    assert seen.startswith("without the defect it is no better: differs: bits differ")
    assert running.run_control(other, replace(run, covered=True), own)[0]


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
    monkeypatch.setattr(running, "compare", lambda *_: found.pop(0))
    run = replace(runs[name], covered=False)
    planted = running.plant(setting, run, [])
    assert planted.caught == caught
    assert ("without the defect it is no better" in planted.seen) == (not caught)


def test_void_with_and_without_the_defect_catches_nothing(work: Work) -> None:
    setting, runs, tokens = work
    run = replace(runs["unequal-lengths"], covered=False)
    own = tokens[run.workload]
    assert running.run_control(setting, run, own)[0]
    never = Setting(setting.contract, Toy("never-decodes"))
    caught, seen = running.run_control(never, run, own)
    assert not caught
    assert seen.startswith("without the defect it is no better: void")


def test_only_the_temperature_that_is_ignored_shows_it(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, runs, tokens = work
    run = runs["temperature-ignored"]
    assert (run.temperature, run.column) == (0.7, 1)
    at_one = replace(run, temperature=1.0, column=0)
    assert not running.run_control(setting, at_one, tokens[run.workload])[0]


def test_a_defect_of_rounding_is_looked_for_in_the_prompt_too(work: Work) -> None:
    setting, runs, tokens = work
    run = runs["log-of-softmax"]
    caught, seen = running.run_control(setting, run, tokens[run.workload])
    assert caught
    known = len(tokens[run.workload][run.sequences[0]])
    assert seen.endswith(f"of {known - 1} tokens")


def test_ids_that_went_through_text_are_never_the_same() -> None:
    assert retokenised([200, 5, 200, 90, 130], 2) == [200, 5, 63, 90, 63]
    assert retokenised([65, 66, 67], 1) == [65, 66, 63]
    assert retokenised([65, 66, 63], 1) == [65, 66, 33]
    for ids in ([1, 2], [1, 63], [1, 255]):
        assert retokenised(ids, 1) != ids
        assert retokenised(ids, 1)[:1] == ids[:1]


def test_a_small_vocabulary_has_no_question_mark(work: Work) -> None:
    _, runs, _ = work
    small = Toy()
    small.vocab = 40
    run = replace(runs["retokenised"], workload="w", sequences=(0,))
    ids = toy.contract(
        workloads=[{"name": "w", "prompts": [[1, 2, 3]], "generate": 4}],
        checks=[{"name": run.check, "relation": "invariance", "paths": ["decode"]}],
    )
    with pytest.raises(UnsupportedError, match="all ASCII bytes"):
        running.run_control(Setting(ids, small), run, [[1, 2, 3, 4, 5, 6, 7]])


class Spy(PlantedSession):
    """Keeps what reaches the inner session."""

    def __init__(self, inner: Any, seen: list[tuple[Step, list[list[int]]]]) -> None:
        super().__init__(inner)
        self.seen = seen

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        self.seen.append((step, [list(own) for own in ids]))
        return self.inner.forward(step, ids)


MEMBERS = (Member("a", 6, 3), Member("b", 4, 1))
IDS = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10]]


def reached(control: str) -> list[tuple[Step, list[list[int]]]]:
    """The steps that a planted subject hands to the toy, for two prompts side by side."""
    seen: list[tuple[Step, list[list[int]]]] = []
    spied = PlantedSubject(Toy(), lambda s, m, layout: Spy(s.session(m, layout), seen))
    first = (Span(0, 0, 3, 2), Span(1, 0, 1, 0))
    rest = [
        (Span(0, 3 + i, 4 + i, 3 + i, decode=True), Span(1, 1 + i, 2 + i, 1 + i, decode=True))
        for i in range(2)
    ]
    plan = Plan(MEMBERS, (first, *rest), Layout(batch="left"))
    subject = CONTROLS[control].rollout(spied)
    found: Record = run(subject, plan, [list(t) for t in IDS], temperatures=(1.0,))
    assert found.index == ((0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2))
    return seen


def test_shifted_positions_are_those_of_decoded_tokens_alone() -> None:
    seen = reached("position-off-by-one")
    assert [[s.position_shift for s in step] for step, _ in seen] == [[0, 0], [1, 1], [1, 1]]
    assert [ids for _, ids in seen] == [[[1, 2, 3], [7]], [[4], [8]], [[5], [9]]]


def test_leaking_pads_are_tokens_in_front_of_the_shorter_prompt() -> None:
    seen = reached("padding-leaks")
    assert [ids for _, ids in seen] == [[[1, 2, 3], [0, 0, 7]], [[4], [8]], [[5], [9]]]
    spans = [[(s.start, s.stop, list(s.rows)) for s in step] for step, _ in seen]
    assert spans == [
        [(0, 3, [2]), (0, 3, [2])],
        [(3, 4, [3]), (3, 4, [3])],
        [(4, 5, [4]), (4, 5, [4])],
    ]


def test_another_prompt_keeps_the_continuation() -> None:
    seen = reached("wrong-input")
    assert [ids for _, ids in seen] == [[[2, 3, 4], [8]], [[4], [8]], [[5], [9]]]


def cache_after(plant: Any) -> tuple[Any, Any]:
    """The cache of a sound and of a planted session after a prompt and one decoded token."""
    caches = []
    for subject in (Toy(), plant(Toy())):
        session = subject.session(MEMBERS[:1], Layout())
        list(session.forward((Span(0, 0, 3, 3),), [[1, 2, 3]]))
        list(session.forward((Span(0, 3, 4, 3, decode=True),), [[4]]))
        caches.append(session.cache())
    return caches[0], caches[1]


def test_a_stale_slot_is_the_newest_of_the_prompt() -> None:
    sound, stale = cache_after(stale_slot)
    assert torch.equal(stale.k[0, 2], sound.k[0, 0])
    assert torch.equal(stale.v[0, 2], sound.v[0, 0])
    for slot in (0, 1, 3):
        assert torch.equal(stale.k[0, slot], sound.k[0, slot])
    assert bool(torch.isnan(stale.k[0, 4:]).all())


def test_a_narrow_cache_keeps_eight_bits() -> None:
    sound, narrow = cache_after(narrow_cache)
    assert torch.equal(narrow.k[0, :4], sound.k[0, :4].bfloat16().float())
    assert not torch.equal(narrow.k[0, :4], sound.k[0, :4])
    assert narrow.k.dtype == torch.float32


def test_a_planted_subject_is_otherwise_the_same() -> None:
    inner = Toy("no-pages")
    outer = PlantedSubject(inner)
    assert (outer.vocab, outer.max_positions, outer.device) == (256, 512, inner.device)
    assert outer.describe() == inner.describe()
    paged = Plan(MEMBERS, (), Layout(page=4))
    assert outer.unsupported(paged) == inner.unsupported(paged) == "the toy has no pages"
    found = outer.oracle(MEMBERS[0], IDS[0], range(2, 5))
    assert torch.equal(found, inner.oracle(MEMBERS[0], IDS[0], range(2, 5)))


def test_no_control_plants_nothing() -> None:
    for name, control in CONTROLS.items():
        sides: list[object] = [control.rollout, control.rescore]
        does: Control = control
        assert (
            any(side is not unchanged for side in sides)
            or does.rescore_ids is not same_ids
            or does.drop
        ), name

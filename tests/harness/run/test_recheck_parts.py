"""The part of a plan that some rows need, and which rows are chosen, against independent counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import records
import torch

from kvparity.plan.paths import build
from kvparity.plan.schedule import Action, Layout, Member, Plan, Span, check_schedule
from kvparity.plan.workload import Prompts
from kvparity.report.lines import Row
from kvparity.run.recheck.choice import chosen, needed, tokens_of
from kvparity.run.recheck.rows import rows_of, unlike
from kvparity_contracts.paths import PathName

Place = tuple[int, int]
PROMPTS = Prompts("w", ("w/0", "w/1", "w/2"), ((0,) * 3, (0,), (0,) * 4), 3)
PATHS = (
    "prefill", "decode", "chunked(2)", "streamed(2)", "reset", "prefix(2)", "batched", "far",
    "batched(2)", "uniform", "mixed", "permuted",
)  # fmt: skip


def plan(path: str) -> Plan:
    return build(PathName.parse(path), PROMPTS, seed=0)


def computed(found: Plan) -> dict[Place, int]:
    """Of each wanted row, a number that stands for everything it was computed from.

    A sequence's state is what was ever computed for it or taken over; what a step computes depends
    on the state of everyone in it. What a reset leaves behind is not forgotten here.
    """
    state = [0] * len(found.members)
    rows = {}
    for number, step in enumerate(found.schedule):
        for action in found.actions:
            if action.step == number:
                if action.kind == "reset":
                    state = [hash(("reset", each)) for each in state]
                else:
                    taken = ("adopted", state[action.donor], action.tokens)
                    state[action.sequence] = hash((state[action.sequence], taken))
        together = hash((step, *(state[span.sequence] for span in step)))
        for span in step:
            state[span.sequence] = hash((state[span.sequence], together))
            rows |= {(span.sequence, row): state[span.sequence] for row in span.rows}
    return rows


def without(part: Plan, number: int) -> Plan:
    """A plan that lacks one of its steps."""
    actions = tuple(
        replace(action, step=action.step - (action.step > number)) for action in part.actions
    )
    schedule = part.schedule[:number] + part.schedule[number + 1 :]
    return replace(part, schedule=schedule, actions=actions)


LINKED = Plan(  # b meets c, which met a: a row of b rests on all three; d is nobody's
    tuple(Member(name, 9, 1) for name in "abcd"),
    (
        (Span(0, 0, 2, 2),),
        (Span(3, 0, 1, 1),),
        (Span(0, 2, 3, 2), Span(2, 0, 1, 0)),
        (Span(0, 3, 4, 3),),
        (Span(2, 1, 2, 1), Span(1, 0, 2, 1)),
        (Span(3, 1, 2, 1),),
        (Span(2, 2, 3, 2),),
        (Span(1, 2, 4, 2),),
    ),
    Layout(),
)
ADOPTED = Plan(  # b takes over what a has at step 2; c what b has at step 4
    tuple(Member(name, 9, 1) for name in "abc"),
    (
        (Span(0, 0, 2, 2),),
        (Span(0, 2, 3, 2),),
        (Span(0, 3, 4, 3), Span(1, 2, 3, 2)),
        (Span(0, 4, 5, 4),),
        (Span(2, 3, 4, 3),),
        (Span(1, 3, 4, 3),),
    ),
    Layout(),
    actions=(Action(2, "adopt", 1, 0, 2), Action(4, "adopt", 2, 1, 3)),
)


def cuts() -> Iterator[tuple[Plan, tuple[Place, ...]]]:
    for whole in (*map(plan, PATHS), LINKED, ADOPTED):
        by_sequence: dict[int, list[Place]] = {}
        for place in computed(whole):
            by_sequence.setdefault(place[0], []).append(place)
        for places in by_sequence.values():
            yield from ((whole, (place,)) for place in places)
            yield whole, (places[0], places[-1])


def test_a_part_computes_its_rows_as_the_whole_does_and_holds_no_step_in_vain() -> None:
    for whole, places in cuts():
        part, wanted = needed(whole, places), computed(whole)
        check_schedule(part.members, part.schedule, part.actions)
        assert (part.members, part.layout) == (whole.members, whole.layout)
        again = computed(part)
        assert [again[place] for place in places] == [wanted[place] for place in places]
        for number in range(len(part.schedule)):
            less = computed(without(part, number))
            assert any(less.get(place) != wanted[place] for place in places)


@pytest.mark.parametrize(
    ("place", "steps", "actions"),
    [
        ((0, 4), [0, 1, 2, 3], [(2, 1)]),  # the step that a shares with b, and what b took over
        ((1, 2), [0, 1, 2], [(2, 1)]),
        ((2, 3), [0, 1, 2, 4], [(2, 1), (3, 2)]),
        ((1, 3), [0, 1, 2, 5], [(2, 1)]),
    ],
)
def test_a_prefix_is_taken_over_in_a_part_too(
    place: Place, steps: list[int], actions: list[tuple[int, int]]
) -> None:
    part = needed(ADOPTED, (place,))
    assert part.schedule == tuple(ADOPTED.schedule[number] for number in steps)
    assert [(action.step, action.sequence) for action in part.actions] == actions


def test_what_happens_behind_the_last_row_is_no_part() -> None:
    """What comes before a reset that is part of a plan computes other tokens."""
    whole = replace(plan("decode"), actions=(Action(3, "reset"),))
    assert needed(whole, ((0, 3),)).actions == ()


def test_a_part_of_a_loop_is_one_sequence_up_to_its_last_row() -> None:
    part = needed(plan("generate"), ((2, 3), (2, 4)))
    assert (part.members, part.generate) == ((Member("w/2", 6, 4),), True)
    assert needed(plan("generate"), ((2, 5),)).members == (Member("w/2", 7, 4),)


# the choice

COMPARED = {(0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5)}


@pytest.mark.parametrize("path", [*PATHS, "generate"])
def test_every_compared_row_may_be_chosen_and_no_other(path: str) -> None:
    found = [chosen(plan(path), seed=seed, unit="u", path=path) for seed in range(60)]
    assert {place for places in found for place in places} == COMPARED
    assert all(len({sequence for sequence, _ in places}) == 1 for places in found)
    assert all(list(places) == sorted(set(places)) for places in found)
    assert {len(places) for places in found} == {1, 2, 3}


def test_three_rows_are_the_most() -> None:
    long = build(PathName("decode"), replace(PROMPTS, generate=90), seed=0)
    counts = [len(chosen(long, seed=seed, unit="u", path="p")) for seed in range(40)]
    assert max(counts) == 3
    assert sum(counts) > 2.8 * 40


@pytest.mark.parametrize("by", ["seed", "unit", "path"])
def test_the_choice_goes_by_each_of_these(by: str) -> None:
    given: dict[str, Any] = {"seed": 1, "unit": "u", "path": "p"}
    found = {
        chosen(plan("decode"), **given | {by: n if by == "seed" else str(n)}) for n in range(9)
    }
    assert len(found) > 3
    assert len({places[0][0] for places in found}) == 3  # all three sequences


def test_a_plan_without_rows_has_none_to_choose() -> None:
    assert chosen(replace(plan("decode"), schedule=()), seed=1, unit="u", path="p") == ()


@pytest.mark.parametrize(
    ("path", "tokens"), [("prefill", 17), ("decode", 14), ("reset", 28), ("generate", 17)]
)
def test_the_cost_of_a_plan_is_its_tokens(path: str, tokens: int) -> None:
    assert tokens_of(plan(path)) == tokens


# the rows


def test_rows_are_kept_in_the_order_asked_for() -> None:
    assert rows_of(records.record(), [(1, 1), (0, 3)]) == (
        (1, 1, "0xfffffffffffffffc", ("0xc0400000", "0xc0600000")),  # -4; -3.0 and -3.5
        (0, 3, "0x0000000000000003", ("0x80000000", "0xbf000000")),  # -0.0 and -0.5
    )


@pytest.mark.parametrize(("wide", "kept"), [(16, 16), (17, 0)])
def test_the_bits_of_a_wide_row_are_in_its_digest(wide: int, kept: int) -> None:
    ((*_, bits),) = rows_of(records.record(values=torch.zeros(5, wide)), [(0, 2)])
    assert bits == ("0x00000000",) * kept


ROWS: list[Row] = [(0, 3, "0xa", ("0x1", "0x2")), (0, 5, "0xb", ("0x3", "0x4"))]
CHANGES: dict[str, tuple[list[Row], str | None]] = {
    "nothing": (ROWS, None),
    "fewer rows again": (ROWS[1:], None),
    "a digest": ([(0, 3, "0xb", ("0x1", "0x2")), ROWS[1]], "position 3 of sequence 0"),
    "a first logprob": ([ROWS[0], (0, 5, "0xb", ("0x1", "0x4"))], "position 5 of sequence 0"),
    "a last logprob": ([ROWS[0], (0, 5, "0xb", ("0x3", "0x3"))], "position 5 of sequence 0"),
    "a logprob that is gone": ([(0, 3, "0xa", ("0x1",))], "position 3 of sequence 0"),
    "a position": ([(0, 4, "0xa", ("0x1", "0x2"))], "position 4 of sequence 0"),
    "a sequence": ([(1, 3, "0xa", ("0x1", "0x2"))], "position 3 of sequence 1"),
    "both": ([(0, 3, "0xc", ()), (0, 5, "0xc", ())], "position 3 of sequence 0"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_first_row_that_is_unlike_is_named(name: str) -> None:
    again, told = CHANGES[name]
    recorded = {"decode": ROWS, "batched": ROWS, "mixed": []}
    assert unlike(recorded, {"batched": ROWS, "decode": again}) == (
        {"decode": told} if told else {}
    )
    assert ("decode" in unlike({"batched": ROWS}, {"decode": again})) is True  # not recorded

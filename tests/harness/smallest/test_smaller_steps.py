"""Written steps with less in them still compute what is left of the workload."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvparity.plan.paths import build
from kvparity.plan.workload import Prompts
from kvparity.smallest.fewer_steps import shortened, simpler, without, written
from kvparity_contracts.draws import CutEdge, DrawMeans, draw
from kvparity_contracts.paths import PathName
from kvparity_contracts.steps import WrittenSteps

GIVEN = DrawMeans((CutEdge("tile", 8),), (16,), True, True)
DRAWN = st.tuples(
    st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(2, 5), st.integers(1, 40)
)


@given(DRAWN, st.integers(0, 60))
@settings(max_examples=60)
def test_with_one_thing_less_they_compute_the_rest(
    drawn: tuple[list[int], int, int], pick: int
) -> None:
    lengths, generate, number = drawn
    steps = draw(number, 0, "w", lengths, generate, GIVEN)
    for _, less in simpler(steps):
        assert less.wrong(lengths, generate) is None
        assert less != steps
    i = pick % len(lengths)
    if len(lengths) > 1:
        assert (
            without(steps, i).wrong([n for j, n in enumerate(lengths) if j != i], generate) is None
        )
    if steps.sequences > len(lengths):
        assert without(steps, len(lengths)).wrong(lengths, generate) is None
    if lengths[i] > 1:
        length = 1 + pick % (lengths[i] - 1)
        shorter = shortened(steps, i, length, lengths[i] - length)
        assert shorter.wrong([*lengths[:i], length, *lengths[i + 1 :]], generate) is None


@given(DRAWN)
@settings(max_examples=30)
def test_taking_things_away_comes_to_an_end(drawn: tuple[list[int], int, int]) -> None:
    lengths, generate, number = drawn
    steps = draw(number, 0, "w", lengths, generate, GIVEN)
    for _ in range(400):
        left = [less for _, less in simpler(steps)]
        if not left:
            break
        steps = left[-1]
    assert not list(simpler(steps))
    own = [
        [s for step in steps.steps for s in step if s.sequence == i] for i in range(len(lengths))
    ]
    assert all(len([s for s in spans if not s.decode]) == 1 for spans in own)
    assert {len(step) for step in steps.steps} == {1}


@pytest.mark.parametrize("path", ["batched", "mixed", "permuted", "paged(4)", "reset", "uniform"])
def test_a_path_by_name_is_written_out(path: str) -> None:
    prompts = Prompts("w", ("w/0", "w/1"), ((0,) * 5, (0,) * 3), 3)
    plan = build(PathName.parse(path), prompts, seed=0)
    steps = written(plan)
    assert steps is not None
    again = build(PathName("steps", steps=str(steps)), prompts, seed=0)
    assert [[(s.sequence, s.start, s.stop, s.decode) for s in step] for step in again.schedule] == [
        [(s.sequence, s.start, s.stop, s.decode) for s in step] for step in plan.schedule
    ]
    assert [s.rows for step in again.schedule for s in step] == [
        s.rows for step in plan.schedule for s in step
    ]
    assert again.actions == plan.actions
    assert again.layout.page == plan.layout.page


@pytest.mark.parametrize("path", ["generate", "padded-left", "uncached", "prefix(2)", "compiled"])
def test_what_no_steps_hold_is_not_written_out(path: str) -> None:
    prompts = Prompts("w", ("w/0",), ((0,) * 5,), 3)
    assert written(build(PathName.parse(path), prompts, seed=0)) is None


def test_a_sequence_takes_its_resets_with_it() -> None:
    steps = WrittenSteps.parse("0:0-2 / reset / 0:0-4 / 1:0-3")
    assert str(without(steps, 0)) == "0:0-3"

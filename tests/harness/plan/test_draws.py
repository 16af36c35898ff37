"""Schedules that are drawn by the seed: what each holds, and which edges they reach."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvparity.plan.paths import build
from kvparity.plan.schedule import Plan, check_schedule
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity_contracts.draws import CutEdge, DrawMeans, draw, reached, targets
from kvparity_contracts.paths import PathName
from kvparity_contracts.steps import WrittenSteps

EDGES = (CutEdge("tile", 16), CutEdge("split", 32), CutEdge("window", 21, once=True))
ALL = DrawMeans(EDGES, (16,), True, True)
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=4)
DRAWS = st.tuples(LENGTHS, st.integers(1, 6), st.integers(1, 60), st.integers(0, 3))


def prompts(lengths: list[int], generate: int) -> Prompts:
    names = tuple(f"w/{i}" for i in range(len(lengths)))
    return Prompts("w", names, tuple((0,) * n for n in lengths), generate)


def drawn(lengths: list[int], generate: int, number: int, seed: int = 0) -> Plan:
    return build(PathName("drawn", number), prompts(lengths, generate), seed=seed, given=ALL)


@given(DRAWS)
@settings(max_examples=50)
def test_a_draw_computes_in_order_and_compares_each_row_once(
    asked: tuple[list[int], int, int, int],
) -> None:
    lengths, generate, number, seed = asked
    found = drawn(lengths, generate, number, seed)
    check_schedule(found.members, found.schedule, found.actions)
    spans = [span for step in found.schedule for span in step]
    rows = sorted((span.sequence, row) for span in spans for row in span.rows)
    assert rows == [(i, p) for i, n in enumerate(lengths) for p in range(n - 1, n + generate - 1)]
    counted = [span for step in found.schedule[found.warm_up :] for span in step]
    own = [span for span in counted if span.sequence < len(lengths)]
    assert any(span.decode for span in own) == (generate > 1)
    assert found.layout.slack not in (0, 3)  # by which it is no path by name
    written = WorkloadPlans(prompts(lengths, generate), seed, ALL).steps(PathName("drawn", number))
    again = build(PathName.parse(written), prompts(lengths, generate), seed=seed + 1)
    assert again == found  # what the evidence holds is the whole of it


@given(DRAWS)
@settings(max_examples=50)
def test_nothing_is_drawn_that_the_subject_cannot_do(
    asked: tuple[list[int], int, int, int],
) -> None:
    lengths, generate, number, seed = asked
    able = DrawMeans(EDGES, (), together=False, resets=False)
    found = draw(number, seed, "w", lengths, generate, able)
    assert {len(step) for step in found.steps} == {1}
    assert found.page == 0


def test_draws_follow_the_seed_and_the_workload_and_nothing_else() -> None:
    def one(seed: int = 0, workload: str = "w", number: int = 3) -> WrittenSteps:
        return draw(number, seed, workload, (20, 50), 4, ALL)

    assert one() == one()
    assert len({one(seed) for seed in range(8)}) > 6
    assert len({one(workload=name) for name in "abcdefgh"}) > 6
    assert len({one(number=number) for number in range(8)}) > 6


def test_all_that_can_be_drawn_is() -> None:
    found = [draw(n, 0, "w", (20, 50), 4, ALL) for n in range(1, 121)]
    assert {bool(each.page) for each in found} == {True, False}
    assert {bool(each.since_reset) for each in found} == {True, False}
    assert {each.slack for each in found} == {1, 2, 5}
    rows = {len(step) for each in found for step in each.steps}
    assert rows >= {1, 2, 15, 16, 17}
    mixed = [step for each in found for step in each.steps if len({p.decode for p in step}) == 2]
    assert mixed
    rescored = [each for each in found if {50 + 4, 20 + 4} & {p.stop for p in sum(each.steps, ())}]
    assert rescored


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 4), st.integers(0, 5))
def test_as_many_draws_as_there_are_sides_of_edges_reach_them_all(
    lengths: list[int], generate: int, seed: int
) -> None:
    aims = targets(max(lengths), ALL)
    found = [draw(n + 1, seed, "w", lengths, generate, ALL) for n in range(len(aims))]
    got = {hit for each in found for hit in reached(each, len(lengths), ALL)}
    assert set(aims) <= got


@pytest.mark.parametrize(
    ("steps", "sides"),
    [
        ("0:0-15 / 0:16-39", {("tile", 0)}),
        ("0:0-14 / 0:15-32 / 0:33-39", {("tile", -1), ("split", 1), ("tile", 1)}),
        ("0:0-20 / 0:21-39", {("window", 0)}),
        ("0:0-38 / 0:39", set()),
        ("0:0-14 / 0:15* / 0:16* / 0:17-39", {("tile", 1)}),  # what is decoded is no chunk
        ("0:0-39 / 1:0-15 / 1:16", set()),  # a stranger's
        ("0:0-15 / 0:16 / reset / 0:0-39", set()),  # for nobody
    ],
)
def test_an_edge_is_reached_where_a_chunk_begins(steps: str, sides: set[tuple[str, int]]) -> None:
    found = reached(WrittenSteps.parse(steps), 1, ALL)
    assert {(edge.name, side) for edge, side in found} == sides


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ("0:0-4 / 0:5*", None),
        ("0:0-4 / 0:5-6", None),
        ("0:0-4", "sequence 0 is computed to 5 tokens, and has 6 or 7 to compute"),
        ("0:0-7", "sequence 0 is computed to 8 tokens"),
        ("0:0-4 / 0:6*", "step 1 has '0:6*', but 5 tokens are computed before"),
        ("0:0-4 0:5*", "step 0 holds a sequence twice"),
        ("0:0-5 / 2:0", "stranger 1 computes nothing"),
        ("0:0-5 1:0-65536", "stranger 1 is computed to 65537 tokens; expected at most 65536"),
        ("1:0-65536 / reset / 0:0-5", "stranger 1 is computed to 65537 tokens"),
        ("0:0-5 / reset / 0:0-4", "sequence 0 is computed to 5 tokens"),
        ("1:0-5", "sequence 0 is computed to 0 tokens"),
    ],
)
def test_steps_that_do_not_compute_a_workload_are_no_plan(steps: str, wrong: str | None) -> None:
    path = PathName.parse(f"steps({steps})")
    if wrong is None:
        plan = build(path, prompts([5], 2), seed=0)
        assert replace(plan.layout, chunk=0).slack == 2
        return
    with pytest.raises(ValueError, match=re.escape(wrong)):
        build(path, prompts([5], 2), seed=0)

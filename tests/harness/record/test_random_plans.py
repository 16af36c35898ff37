"""Random plans: a schedule in order gives the rows of prefill, and any other is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import toy
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span, check_schedule
from kvparity.record.execute import run

LAYOUTS = (Layout(), Layout(batch="left"), Layout(batch="right"), Layout(page=4), Layout(slack=3))
Place = tuple[int, int]
Row = tuple[int, float]


@dataclass(frozen=True)
class Drawn:
    """A plan of sequences and the tokens of each."""

    plan: Plan
    tokens: list[list[int]]


@st.composite
def drawn(draw: st.DrawFn, *, actions: bool = True) -> Drawn:
    """Spans of any size, in any grouping; resets, and prefixes taken over by an empty sequence."""
    lengths = draw(st.lists(st.integers(2, 9), min_size=1, max_size=3))
    tokens = [[draw(st.integers(0, 255)) for _ in range(n)] for n in lengths]
    filled, steps, acts = [0] * len(lengths), list[tuple[Span, ...]](), list[Action]()
    if actions and draw(st.booleans()):  # an earlier use, of which nothing may stay
        first = tuple(Span(i, 0, draw(st.integers(1, n)), 0) for i, n in enumerate(lengths))
        steps.append(tuple(replace(span, rows_from=span.stop) for span in first))
        acts.append(Action(1, "reset"))
    while any(done < n for done, n in zip(filled, lengths, strict=True)):
        donors = [i for i, done in enumerate(filled) if done > 1]
        empty = [i for i, done in enumerate(filled) if not done]
        if actions and donors and empty and draw(st.booleans()):
            donor, taker = draw(st.sampled_from(donors)), draw(st.sampled_from(empty))
            shared = draw(st.integers(1, min(filled[donor], lengths[taker]) - 1))
            tokens[taker][:shared] = tokens[donor][:shared]
            acts.append(Action(len(steps), "adopt", taker, donor, shared))
            filled[taker] = shared
        left = [i for i, n in enumerate(lengths) if filled[i] < n]
        step = []
        for i in draw(st.lists(st.sampled_from(left), min_size=1, unique=True)):
            start, stop = filled[i], draw(st.integers(filled[i] + 1, lengths[i]))
            decode = stop == start + 1 and start > 0 and draw(st.booleans())
            step.append(Span(i, start, stop, start, decode, rows_to=min(stop, lengths[i] - 1)))
            filled[i] = stop
        steps.append(tuple(step))
    members = tuple(Member(f"s{i}", n) for i, n in enumerate(lengths))
    layout = draw(st.sampled_from(LAYOUTS))
    return Drawn(Plan(members, tuple(steps), layout, actions=tuple(acts)), tokens)


def alone(given: Drawn) -> Plan:
    """Each sequence by itself, in one call."""
    steps = [
        (Span(i, 0, m.length, 0, rows_to=m.length - 1),) for i, m in enumerate(given.plan.members)
    ]
    return Plan(given.plan.members, tuple(steps), Layout())


def recorded(plan: Plan, tokens: list[list[int]], *defects: str) -> dict[Place, Row]:
    """(sequence, position) -> digest of the row and logprob of the next token."""
    found = run(toy.Toy(*defects), plan, tokens, temperatures=(1.0,))
    rows = zip(found.digests.tolist(), found.values[:, 0].tolist(), strict=True)
    return dict(zip(found.index, rows, strict=True))


def compared(plan: Plan) -> list[tuple[Place, int]]:
    """Each place whose row a plan gives, and with how many sequences it is computed."""
    return [
        ((span.sequence, position), len(step))
        for step in plan.schedule[plan.warm_up :]
        for span in step
        for position in span.rows
    ]


@settings(max_examples=60)
@given(drawn())
def test_any_schedule_in_order_gives_the_rows_of_prefill(given: Drawn) -> None:
    check_schedule(given.plan.members, given.plan.schedule, given.plan.actions)
    found, whole = recorded(given.plan, given.tokens), recorded(alone(given), given.tokens)
    assert found == {place: whole[place] for place, _ in compared(given.plan)}


@pytest.mark.parametrize("defect", ["adopts-short", "shares-slots"])
def test_the_control_plans_are_drawn_that_show_a_defect_of_sessions(defect: str) -> None:
    def shows(given: Drawn) -> bool:
        found = recorded(given.plan, given.tokens, defect)
        whole = recorded(alone(given), given.tokens)
        return any(found[place] != whole[place] for place in found)

    quick = settings(max_examples=300, database=None, phases=[Phase.generate])
    find(drawn(), shows, settings=quick)  # raises where there is none


@settings(max_examples=30)
@given(drawn())
def test_a_defect_of_a_batch_shows_in_its_rows_and_in_no_other(given: Drawn) -> None:
    found = recorded(given.plan, given.tokens, "batch-dependent")
    whole = recorded(alone(given), given.tokens, "batch-dependent")
    wrong = {place for place in found if found[place][0] != whole[place][0]}
    assert wrong == {place for place, together in compared(given.plan) if together > 1}


@settings(max_examples=40)
@given(drawn(actions=False), st.data())
def test_a_step_left_out_or_done_twice_is_refused(given: Drawn, data: st.DataObject) -> None:
    steps = list(given.plan.schedule)
    at = data.draw(st.integers(0, len(steps) - 1))
    later = {span.sequence for step in steps[at + 1 :] for span in step}
    if later & {span.sequence for span in steps[at]} and data.draw(st.booleans()):
        del steps[at]
    else:
        steps.insert(at, steps[at])
    broken = replace(given.plan, schedule=tuple(steps))
    with pytest.raises(ValueError, match="filled to"):
        check_schedule(broken.members, broken.schedule)
    with pytest.raises(ValueError, match="filled to"):
        recorded(broken, given.tokens)

"""Which rows of a path are computed again, and the part of its plan that they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kvparity.core.rng import stream
from kvparity.plan.schedule import Action, Plan, Step

ROWS = 3
"""Rows of a path that are computed again, at most: all of one sequence."""
Place = tuple[int, int]
"""(sequence, position) of a compared row."""


def chosen(plan: Plan, *, seed: int, unit: str, path: str) -> tuple[Place, ...]:
    """Up to ``ROWS`` compared rows of one sequence, as (seed, unit, path) choose them.

    The sequence goes by the path, so that two paths of a unit rarely share one: then a memo that
    one of them left does not serve the other.
    """
    by_sequence: dict[int, list[int]] = {}
    for sequence, position in _rows(plan):
        by_sequence.setdefault(sequence, []).append(position)
    if not by_sequence:
        return ()
    names = sorted(by_sequence)
    sequence = names[stream(seed, f"{unit}/{path}", "rows to compute again") % len(names)]
    positions = sorted(by_sequence[sequence])
    picked = {
        positions[stream(seed, f"{unit}/{path}/{n}", "rows to compute again") % len(positions)]
        for n in range(ROWS)
    }
    return tuple((sequence, position) for position in sorted(picked))


def _rows(plan: Plan) -> list[Place]:
    if plan.generate:
        return [
            (sequence, position)
            for sequence, member in enumerate(plan.members)
            for position in range(member.prompt - 1, member.length - 1)
        ]
    return [place for step in plan.schedule for place in _places(step)]


def needed(plan: Plan, places: tuple[Place, ...]) -> Plan:
    """The part of ``plan`` that the rows ``places`` of one sequence depend on.

    Its steps up to the last of these rows, with every sequence that shares one of them or gives a
    prefix, each step whole: whether a row depends on its neighbours is what is in question.
    """
    if plan.generate:
        (sequence,) = {place[0] for place in places}
        stop = max(place[1] for place in places) + 2
        member = replace(plan.members[sequence], length=stop)
        return replace(plan, members=(member,))
    wanted = set(places)
    last = max(n for n, step in enumerate(plan.schedule) if wanted & set(_places(step)))
    linked = {place[0] for place in places}
    kept: list[int] = []
    for number in range(last, -1, -1):
        step = plan.schedule[number]
        if linked & {span.sequence for span in step}:
            linked |= {span.sequence for span in step}
            kept.append(number)
        linked |= {a.donor for a in plan.actions if a.step == number and _adopts(a, linked)}
    kept.reverse()
    actions = tuple(
        replace(action, step=sum(number < action.step for number in kept))
        for action in plan.actions
        if action.step <= last and (action.kind == "reset" or action.sequence in linked)
    )
    steps = tuple(plan.schedule[number] for number in kept)
    return replace(plan, schedule=steps, actions=actions)


def _places(step: Step) -> Iterator[Place]:
    for span in step:
        for position in span.rows:
            yield span.sequence, position


def _adopts(action: Action, linked: set[int]) -> bool:
    return action.kind == "adopt" and action.sequence in linked


def tokens_of(plan: Plan) -> int:
    """How many tokens a plan computes: a guess at its cost."""
    if plan.generate:
        return sum(member.length for member in plan.members)
    return sum(span.stop - span.start for step in plan.schedule for span in step)

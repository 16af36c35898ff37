"""Written steps with less in them: a sequence, some tokens, a cut, a mixed step, pages, a reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kvparity.plan.schedule import Plan
from kvparity_contracts.steps import SLACK, WrittenSpan, WrittenSteps


def without(steps: WrittenSteps, sequence: int) -> WrittenSteps:
    """Without a sequence; those behind it move up."""
    kept = (
        tuple(
            replace(each, sequence=each.sequence - (each.sequence > sequence))
            for each in step
            if each.sequence != sequence
        )
        for step in steps.steps
    )
    return _tidy(steps, kept)


def shortened(steps: WrittenSteps, sequence: int, first: int, count: int) -> WrittenSteps:
    """Without ``count`` positions of a sequence from ``first`` on; later ones move up."""

    def at(position: int) -> int:
        return position if position <= first else max(first, position - count)

    moved = (
        tuple(
            replace(each, start=at(each.start), stop=at(each.stop))
            if each.sequence == sequence
            else each
            for each in step
        )
        for step in steps.steps
    )
    return _tidy(steps, (tuple(s for s in step if s.stop > s.start) for step in moved))


def _tidy(steps: WrittenSteps, kept: Iterator[tuple[WrittenSpan, ...]]) -> WrittenSteps:
    """Steps that lost all are none; a reset with nothing before it is none, either."""
    found: list[tuple[WrittenSpan, ...]] = []
    for before, step in zip(steps.steps, kept, strict=True):
        if step or (not before and found):
            found.append(step)
    return replace(steps, steps=tuple(found))


def simpler(steps: WrittenSteps) -> Iterator[tuple[str, WrittenSteps]]:
    """One thing less each, and what it is; the largest first."""
    begin = steps.since_reset
    if begin:
        yield "an earlier use", replace(steps, steps=steps.steps[begin:])
    if steps.page:
        yield "pages", replace(steps, page=0)
    if steps.slack != SLACK:
        yield "slack", replace(steps, slack=SLACK)
    if begin > 2:  # what goes before may begin what a later one goes on with
        left = (*steps.steps[: begin - 2], *steps.steps[begin - 1 :])
        yield "a step", replace(steps, steps=left)
    for number, step in enumerate(steps.steps):
        if len(step) > 1:
            halves = (*steps.steps[:number], step[:1], step[1:], *steps.steps[number + 1 :])
            yield "a mixed step", replace(steps, steps=halves)
    yield from (("a cut", each) for each in _joined(steps))


def _joined(steps: WrittenSteps) -> Iterator[WrittenSteps]:
    """Two chunks of a sequence that follow each other become one, in the place of the first."""
    for number in range(steps.since_reset, len(steps.steps)):
        for each in steps.steps[number]:
            later = (
                (n, other)
                for n in range(number + 1, len(steps.steps))
                for other in steps.steps[n]
                if other.sequence == each.sequence
            )
            after, other = next(later, (0, each))
            if not after or each.decode or other.decode:
                continue
            found = list(steps.steps)
            whole = replace(each, stop=other.stop)
            found[number] = tuple(whole if one is each else one for one in found[number])
            found[after] = tuple(one for one in found[after] if one is not other)
            yield replace(steps, steps=tuple(step for i, step in enumerate(found)
                                             if step or not steps.steps[i]))  # fmt: skip


PLAIN: tuple[Callable[[Plan], bool], ...] = (
    lambda plan: plan.generate,
    lambda plan: plan.layout.batch != "packed" or not plan.layout.cached or plan.layout.far,
    lambda plan: plan.layout.program != "eager",
    lambda plan: any(each.kind != "reset" for each in plan.actions),
    lambda plan: any(s.verify or s.position_shift for step in plan.schedule for s in step),
)
"""What no written steps hold."""


def written(plan: Plan) -> WrittenSteps | None:
    """The steps of a plan, written out; None where they cannot be."""
    if any(found(plan) for found in PLAIN):
        return None
    resets = {action.step for action in plan.actions}
    steps: list[tuple[WrittenSpan, ...]] = []
    for number, step in enumerate(plan.schedule):
        steps += [()] if number in resets else []
        steps.append(tuple(WrittenSpan(s.sequence, s.start, s.stop, s.decode) for s in step))
    return WrittenSteps(tuple(steps), plan.layout.page)

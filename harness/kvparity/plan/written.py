"""Steps that a contract writes, or that were drawn for it, as a plan."""

from __future__ import annotations

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span, Step, check_schedule
from kvparity.plan.workload import Prompts
from kvparity_contracts.steps import WrittenSpan, WrittenSteps


def plan_of(written: WrittenSteps, prompts: Prompts) -> Plan:
    """The plan of steps; sequences behind the workload's own are strangers.

    Raises:
        ValueError: they do not compute the workload.
    """
    wrong = written.wrong(tuple(map(len, prompts.prompts)), prompts.generate)
    if wrong is not None:
        raise ValueError(f"steps({written}): {wrong}")
    members = [
        Member(name, prompts.length(i), len(prompts.prompts[i]))
        for i, name in enumerate(prompts.ids)
    ]
    own = len(members)
    pieces = [piece for step in written.steps for piece in step]
    for i in range(own, written.sequences):
        longest = max(piece.stop for piece in pieces if piece.sequence == i)
        members.append(Member(f"(stranger)/{i}", longest + 1))
    steps: list[Step] = []
    actions = []
    for number, step in enumerate(written.steps):
        if not step:
            actions.append(Action(len(steps), "reset"))
            continue
        seen = number >= written.since_reset
        spans = (_span(p, members[p.sequence], seen and p.sequence < own) for p in step)
        steps.append(tuple(spans))
    check_schedule(members, steps, actions)
    layout = Layout(page=written.page, slack=written.slack)
    return Plan(tuple(members), tuple(steps), layout, actions=tuple(actions))


def _span(piece: WrittenSpan, member: Member, compared: bool) -> Span:
    """With the compared rows that fall into it."""
    first = last = piece.stop
    if compared:
        first = min(max(piece.start, member.prompt - 1), piece.stop)
        last = max(first, min(piece.stop, member.length - 1))
    return Span(piece.sequence, piece.start, piece.stop, first, piece.decode, rows_to=last)

"""What prefill of an attention pair gives, row by row."""

from __future__ import annotations

from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.record.execute import Record, run
from kvparity.subjects.pair.subject import AttentionSubject


def rows(found: AttentionSubject, plan: Plan) -> Record:
    tokens = [[0] * m.length for m in plan.members]
    return run(found, plan, tokens, temperatures=(1.0,))


def prefill_of(*names: str, length: int = 6) -> Plan:
    members = tuple(Member(name, length, 2) for name in names)
    steps = (tuple(Span(i, 0, length, 1, rows_to=length - 1) for i in range(len(names))),)
    return Plan(members, steps, Layout())

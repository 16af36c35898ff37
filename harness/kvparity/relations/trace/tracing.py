"""Run one path of a workload and write down what its layers looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.record.execute import Choose, Record, at_work
from kvparity.record.path_run import PathRun
from kvparity.record.run_events import watching
from kvparity.relations.trace.collector import Collector
from kvparity.relations.trace.facts import Facts
from kvparity.relations.trace.judging import Judgement, judge
from kvparity.relations.trace.lines import Line
from kvparity.subjects import events
from kvparity.subjects.base import Subject


@dataclass(frozen=True)
class Trace:
    """All lines of one path over one workload, and what they show."""

    path: str
    lines: tuple[Line, ...]
    judgement: Judgement
    record: Record


def declared(subject: Subject) -> Facts:
    """The shape that the subject's cache declares, asked of a session of one token.

    Some caches have no layers before they are first written to.
    """
    with torch.inference_mode(), at_work():
        session = subject.session([Member("(asked)", 2)], Layout(chunk=1))
        for _ in session.forward((Span(0, 0, 1, rows_from=1),), [[0]]):
            pass
        return Facts(session.cache())


def trace_side(side: PathRun, *, choose: Choose | None = None) -> Trace:
    """Run the side and check its trace against the invariants.

    What is expected is asked of the setting's subject, so that a defect planted in the side's own
    cannot change both. ``choose``: draws the tokens that are not known yet.
    """
    honest = side.setting.subject
    facts = declared(honest)
    collector = Collector(side.plan, len(side.prompts.ids), facts, reduction_of(honest))
    with events.listening(collector), watching(collector):
        record = side.run(choose=choose)
    lines = collector.lines()
    with at_work():  # the cache is asked for windows and owners
        judgement = judge(lines, facts, collector.missing())
    return Trace(str(side.path), lines, judgement, record)


def reduction_of(subject: Subject) -> tuple[int, int] | None:
    """(split, tile) in which the subject says that its attention reduces, where it does say so."""
    order = subject.describe().get("order")
    if not isinstance(order, Mapping):
        return None
    split, tile = order.get("split"), order.get("tile")
    return (split, tile) if isinstance(split, int) and isinstance(tile, int) else None

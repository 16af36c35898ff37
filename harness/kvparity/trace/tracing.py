"""Run one path of a workload and write down what its layers looked at."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kvparity import taps
from kvparity.paths import build
from kvparity.schedule import Layout, Member
from kvparity.subject import Subject
from kvparity.trace.collector import Collector
from kvparity.trace.facts import Facts
from kvparity.trace.judging import Judgement, judge
from kvparity.trace.lines import Line
from kvparity.unit import Setting, Tokens, run_path
from kvparity.workload import Prompts
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class Trace:
    """All lines of one path over one workload, and what they show."""

    path: str
    lines: tuple[Line, ...]
    facts: Facts
    judgement: Judgement


def declared(subject: Subject) -> Facts:
    """The shape that the subject's cache declares, asked of a session that computes nothing."""
    with torch.inference_mode():
        session = subject.session([Member("(asked)", 2)], Layout(chunk=1))
        return Facts(session.cache())


def trace_path(
    setting: Setting,
    prompts: Prompts,
    path: PathName,
    tokens: Tokens,
    *,
    subject: Subject | None = None,
) -> Trace:
    """Run ``path`` over known ``tokens`` and hold its trace against the invariants.

    ``subject``: the setting's with a defect planted; what is expected is asked of the setting's
    own, so that a defect cannot change both sides.
    """
    facts = declared(setting.subject)
    plan = build(path, prompts, seed=setting.contract.seed)
    order = reduction_of(setting.subject)
    collector = Collector(plan, len(prompts.ids), facts, order)
    with taps.listening(collector):
        run_path(setting, subject or setting.subject, prompts, path, tokens, watch=collector)
    lines = collector.lines()
    return Trace(str(path), lines, facts, judge(lines, facts, collector.missing()))


def reduction_of(subject: Subject) -> tuple[int, int] | None:
    """(split, tile) in which the subject says that its attention reduces, where it does say so."""
    order = subject.describe().get("order")
    return (order["split"], order["tile"]) if order else None

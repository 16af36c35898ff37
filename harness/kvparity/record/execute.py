"""Run one plan and keep what is compared: per token a few values and one digest of its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.words import some
from kvparity.plan.schedule import Action, Plan, Step, check_schedule
from kvparity.record.products import counting
from kvparity.record.run_events import Acted, Ended, Opened, Stepped
from kvparity.record.scoring import Choose as Choose
from kvparity.record.scoring import RowScorer, Scored
from kvparity.record.scoring import Tokens as Tokens
from kvparity.record.scoring import at_work as at_work
from kvparity.record.whole import by_answers
from kvparity.subjects.base import AnswersWhole, Faulting, Generates, Reusable, Session, Subject
from kvparity_kernels.launch import LaunchLog
from kvparity_kernels.launch import record as record_launches
from kvparity_kernels.stream import emit


@dataclass(frozen=True)
class Record:
    """The compared rows of one path, in order of (sequence, position).

    ``values`` float32 ``[rows, width]``: logprobs by temperature, or an attention row.
    ``digests`` int64 ``[rows]``: of the whole logits row. ``targets`` int64 ``[rows]``.
    ``finite`` bool ``[rows]``: no NaN in the row, no NaN or Inf in the values. ``faults``: what was
    wrong with rows that no sequence owns. ``unproved``: why it is not known that the plan ran as it
    says, or None.
    """

    plan: Plan
    index: tuple[tuple[int, int], ...]
    targets: Tensor
    values: Tensor
    digests: Tensor
    finite: Tensor
    observed: Counter[str]
    launches: LaunchLog
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    unproved: str | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What is kept as evidence."""
        return {"values": self.values, "digests": self.digests, "targets": self.targets}


def _record(
    collector: RowScorer,
    plan: Plan,
    observed: Counter[str],
    launches: LaunchLog,
    faults: tuple[str, ...],
) -> Record:
    found = collector.scored or Scored.empty(0, 1, torch.device("cpu"))
    order = sorted(range(len(collector.index)), key=collector.index.__getitem__)
    pick = torch.tensor(order, dtype=torch.int64, device=found.values.device)
    return Record(
        plan=plan,
        index=tuple(collector.index[i] for i in order),
        targets=found.targets[pick],
        values=found.values[pick],
        digests=found.digests[pick],
        finite=found.finite[pick],
        observed=observed,
        launches=launches,
        kept=collector.kept,
        faults=faults,
    )


def _work(log: LaunchLog, observed: Counter[str]) -> LaunchLog:
    """Launches, and beside them the calls of attention that is not ours, which launches nothing."""
    calls = {n: count for n, count in observed.items() if n.endswith((".prefill", ".decode"))}
    return LaunchLog(Counter({**calls, **log.counts}) if log.counts else Counter(), log.kernels)


def _rows(plan: Plan) -> int:
    """The rows that a plan asks for."""
    if plan.generate:
        return sum(member.length - member.prompt for member in plan.members)
    return sum(len(span.rows) for step in plan.schedule for span in step)


def unlike(ids: Sequence[int], vocab: int) -> list[int]:
    """Ids that differ from the given ones everywhere; of an attention subject, 1 (see there)."""
    return [(each + 1) % max(vocab, 2) for each in ids]


def _run_steps(
    session: Session, plan: Plan, collector: RowScorer, before: Tokens | None, vocab: int
) -> None:
    if plan.actions and not isinstance(session, Reusable):
        raise UnsupportedError("a session of this subject cannot be reset or shared")
    for number, step in enumerate(plan.schedule):
        for action in plan.actions:
            if action.step == number:
                _act(session, action)
                emit(Acted(action))
        known = collector.tokens if number >= plan.warm_up or before is None else before
        ids = [list(known[s.sequence][s.start : s.stop]) for s in step]
        for span, part in zip(step, ids, strict=True):
            part[len(part) - span.rejected :] = unlike(part[len(part) - span.rejected :], vocab)
            if len(part) != span.stop - span.start:
                raise SubjectError(
                    f"the step asks for positions {span.start}..{span.stop} of "
                    f"{plan.members[span.sequence].id}, but only "
                    f"{len(known[span.sequence])} tokens are known"
                )
        places = [(span.sequence, position) for span in step for position in span.rows]
        done = 0
        for rows in _blocks(session, step, ids):
            collector.check(rows)
            if not len(rows):
                continue
            if done + len(rows) > len(places):
                raise SubjectError(
                    f"the subject gave more than the {some(len(places), 'row')} wanted"
                )
            collector.add(places[done : done + len(rows)], rows)
            done += len(rows)
        if done != len(places):
            raise SubjectError(f"the subject gave {some(done, 'row')} of the {len(places)} wanted")
        emit(Stepped(session, step, ids))


def _act(session: Session, action: Action) -> None:
    assert isinstance(session, Reusable)  # _run_steps asks before it begins
    with at_work():
        if action.kind == "reset":
            session.reset()
        else:
            session.adopt(action.sequence, action.donor, action.tokens)


def _blocks(session: Session, step: Step, ids: list[list[int]]) -> Iterator[Tensor]:
    with at_work("decode" if all(span.decode for span in step) else "prefill"):
        yield from session.forward(step, ids)


def _run_generate(subject: Subject, plan: Plan, collector: RowScorer) -> Counter[str]:
    if not isinstance(subject, Generates):
        raise UnsupportedError("this subject has no generate() loop of its own")
    observed: Counter[str] = Counter()
    for sequence, member in enumerate(plan.members):
        prompt = list(collector.tokens[sequence][: member.prompt])

        def take(position: int, row: Tensor, sequence: int = sequence) -> int:
            rows = row.reshape(1, -1)
            collector.check(rows)
            collector.add([(sequence, position - 1)], rows)
            return collector.tokens[sequence][position]

        with at_work("generate"):
            observed += subject.generate(member, prompt, take)
        taken = sum(place[0] == sequence for place in collector.index)
        if taken != member.length - member.prompt:
            raise SubjectError(
                f"generate() took {taken} tokens for {member.id}, expected "
                f"{member.length - member.prompt}"
            )
    return observed


def _whole(
    subject: AnswersWhole,
    plan: Plan,
    tokens: Tokens,
    before: Tokens | None,
    temperatures: Sequence[float],
) -> Record:
    (temperature,) = temperatures  # the contract has one
    with at_work():
        found = subject.answer(plan, tokens, before, temperature)
    rows = by_answers(found, tokens)
    return Record(
        plan=plan,
        index=rows.index,
        targets=rows.targets,
        values=rows.values,
        digests=rows.digests,
        finite=rows.finite,
        observed=found.observed,
        launches=LaunchLog(Counter(), {}),
        unproved=found.unproved,
    )


def run(
    subject: Subject,
    plan: Plan,
    tokens: Tokens,
    *,
    temperatures: Sequence[float],
    choose: Choose | None = None,
    keep: frozenset[tuple[int, int]] = frozenset(),
    before: Tokens | None = None,
) -> Record:
    """Compute ``plan`` and keep its compared rows.

    ``tokens[i]`` are the known tokens of member ``i``; with ``choose`` the missing ones are drawn
    and appended in place, without it all must be known. ``before``: the tokens of the steps before
    a reset (None: the same). ``keep`` names rows to hold whole.
    Steps and actions are events (``run_events``).

    Raises:
        SubjectError: the subject gave other rows than it was asked for.
        UnsupportedError: the subject cannot do this plan.
    """
    reason = subject.unsupported(plan)
    if reason is not None:
        raise UnsupportedError(reason)
    check_schedule(plan.members, plan.schedule, plan.actions)
    if isinstance(subject, AnswersWhole):
        return _whole(subject, plan, tokens, before, temperatures)
    collector = RowScorer(subject, tokens, temperatures, choose, keep, _rows(plan))
    faults: tuple[str, ...] = ()
    with torch.inference_mode(), record_launches() as log, counting() as products:
        if plan.generate:
            observed = _run_generate(subject, plan, collector)
        else:
            with at_work("opening a session"):
                session = subject.session(plan.members, plan.layout)
                if not plan.layout.cached and session.cache() is not None:
                    raise SubjectError("the path is without a cache, but the session has one")
            emit(Opened(session))
            _run_steps(session, plan, collector, before, subject.vocab)
            emit(Ended(session))
            observed = session.observed()
            faults = tuple(session.faults()) if isinstance(session, Faulting) else ()
    return _record(collector, plan, observed + products, _work(log, observed), faults)

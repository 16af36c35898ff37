"""Run one plan and keep what is compared: per token a few values and one digest of its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kvparity.schedule import Action, Plan, Step, check_schedule
from kvparity.subject import (
    Generates,
    Reusable,
    Session,
    Subject,
    SubjectError,
    UnsupportedError,
)
from kvparity_kernels.digest import row_digest
from kvparity_kernels.launch import record as record_launches

Tokens = list[list[int]]
Choose = Callable[[int, int, Tensor], int]
"""(sequence, position, logits[vocab]) -> the token at ``position``."""


@dataclass(frozen=True)
class Record:
    """The compared rows of one path, in order of (sequence, position).

    ``values`` float32 ``[rows, width]``: logprobs by temperature, or an attention row.
    ``digests`` int64 ``[rows]``: of the whole logits row. ``targets`` int64 ``[rows]``.
    ``finite`` bool ``[rows]``: no NaN in the row, no NaN or Inf in the values.
    """

    plan: Plan
    index: tuple[tuple[int, int], ...]
    targets: Tensor
    values: Tensor
    digests: Tensor
    finite: Tensor
    observed: Counter[str]
    launches: dict[str, Any]
    kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """What is kept as evidence."""
        return {"values": self.values, "digests": self.digests, "targets": self.targets}


class Watch:
    """Looks at a session while a plan runs; this one looks at nothing."""

    def opened(self, session: Session) -> None:
        """The session is open, and nothing is computed yet."""

    def acted(self, action: Action) -> None:
        """The session was reset, or a sequence took over another's cache."""

    def stepped(self, session: Session, step: Step, ids: Sequence[Sequence[int]]) -> None:
        """One step is computed; ``ids[i]`` were the tokens of ``step[i]``."""

    def ended(self, session: Session) -> None:
        """All steps are computed."""


@contextmanager
def at_work() -> Iterator[None]:
    """Around the subject's own code: what it raises becomes a ``SubjectError`` that says so.

    ``SystemExit`` too, or a subject could choose kvparity's exit code.
    """
    try:
        yield
    except (SubjectError, UnsupportedError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise SubjectError(f"the subject raised {type(error).__name__}: {error}") from error


class _Collector:
    """Scores blocks of rows as they come, so that no more than one block of logits is held."""

    def __init__(
        self,
        subject: Subject,
        tokens: Tokens,
        temperatures: Sequence[float],
        choose: Choose | None,
        keep: frozenset[tuple[int, int]],
    ) -> None:
        self.subject, self.tokens, self.temperatures = subject, tokens, temperatures
        self.choose, self.keep = choose, keep
        self.index: list[tuple[int, int]] = []
        self.targets: list[Tensor] = []
        self.values: list[Tensor] = []
        self.digests: list[Tensor] = []
        self.finite: list[Tensor] = []
        self.kept: dict[tuple[int, int], Tensor] = {}

    def _target(self, sequence: int, position: int, row: Tensor) -> int:
        known = self.tokens[sequence]
        if position + 1 == len(known) and self.choose is not None:
            known.append(self.choose(sequence, position + 1, row))
        if position + 1 >= len(known):
            raise SubjectError(
                f"a row at position {position} of sequence {sequence} came before its turn: only "
                f"{len(known)} tokens are known"
            )
        return known[position + 1]

    def check(self, rows: Tensor) -> None:
        """Refuse rows that are no float matrix of the right width."""
        width = self.subject.vocab or (self.values[0].shape[1] if self.values else None)
        if rows.dim() != 2 or not rows.is_floating_point() or width not in (None, rows.shape[1]):
            raise SubjectError(
                f"the subject gave rows of shape {list(rows.shape)} in {rows.dtype}, expected "
                f"[rows, {width}] in a float format"
            )

    def add(self, where: Sequence[tuple[int, int]], rows: Tensor) -> None:
        """Take the rows ``[len(where), vocab]`` of the positions ``where``."""
        if self.subject.vocab:
            drawn = [self._target(s, p, row) for (s, p), row in zip(where, rows, strict=True)]
        else:
            drawn = [0] * len(where)
        targets = torch.tensor(drawn, dtype=torch.int64, device=rows.device)
        with at_work():
            values = self.subject.values(rows, targets, self.temperatures)
        shape = (len(where), len(self.temperatures) if self.subject.vocab else rows.shape[1])
        if tuple(values.shape) != shape or values.dtype != torch.float32:
            raise SubjectError(
                f"the subject gave values of shape {list(values.shape)} in {values.dtype}, "
                f"expected {list(shape)} in float32"
            )
        self.finite.append(torch.isfinite(values).all(-1) & ~torch.isnan(rows).any(-1))
        self.index.extend(where)
        self.targets.append(targets)
        self.values.append(values)
        self.digests.append(row_digest(rows, twin=rows.device.type == "cpu"))
        for number, place in enumerate(where):
            if place in self.keep:
                self.kept[place] = rows[number].detach().cpu().clone()

    def finish(self, plan: Plan, observed: Counter[str], launches: dict[str, Any]) -> Record:
        if not self.index:
            empty = torch.empty(0, dtype=torch.int64)
            return Record(
                plan, (), empty, torch.empty(0, 1), empty, empty.bool(), observed, launches
            )
        order = sorted(range(len(self.index)), key=self.index.__getitem__)
        pick = torch.tensor(order, device=self.values[0].device)
        return Record(
            plan=plan,
            index=tuple(self.index[i] for i in order),
            targets=torch.cat(self.targets)[pick],
            values=torch.cat(self.values)[pick],
            digests=torch.cat(self.digests)[pick],
            finite=torch.cat(self.finite)[pick],
            observed=observed,
            launches=launches,
            kept=self.kept,
        )


def _step_places(step: Step) -> list[tuple[int, int]]:
    return [(span.sequence, position) for span in step for position in span.rows]


def _run_steps(
    session: Session, plan: Plan, collector: _Collector, watch: Watch, before: Tokens | None
) -> None:
    if plan.actions and not isinstance(session, Reusable):
        raise UnsupportedError("a session of this subject can be neither reset nor shared")
    for number, step in enumerate(plan.schedule):
        for action in plan.actions:
            if action.step == number:
                _act(session, action)
                watch.acted(action)
        known = collector.tokens if number >= plan.warm_up or before is None else before
        ids = [known[s.sequence][s.start : s.stop] for s in step]
        for span, part in zip(step, ids, strict=True):
            if len(part) != span.stop - span.start:
                raise SubjectError(
                    f"the step asks for positions {span.start}..{span.stop} of "
                    f"{plan.members[span.sequence].id}, but only "
                    f"{len(known[span.sequence])} tokens are known"
                )
        places = _step_places(step)
        done = 0
        for rows in _blocks(session, step, ids):
            collector.check(rows)
            if not len(rows):
                continue
            if done + len(rows) > len(places):
                raise SubjectError(f"the subject gave more than the {len(places)} rows wanted")
            collector.add(places[done : done + len(rows)], rows)
            done += len(rows)
        if done != len(places):
            raise SubjectError(f"the subject gave {done} rows of the {len(places)} wanted")
        watch.stepped(session, step, ids)


def _act(session: Session, action: Action) -> None:
    if not isinstance(session, Reusable):
        raise TypeError("_run_steps asks before it begins")
    with at_work():
        if action.kind == "reset":
            session.reset()
        else:
            session.adopt(action.sequence, action.donor, action.tokens)


def _blocks(session: Session, step: Step, ids: list[list[int]]) -> Iterator[Tensor]:
    with at_work():
        yield from session.forward(step, ids)


def _run_generate(subject: Subject, plan: Plan, collector: _Collector) -> Counter[str]:
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

        with at_work():
            observed += subject.generate(member, prompt, take)
        taken = sum(place[0] == sequence for place in collector.index)
        if taken != member.length - member.prompt:
            raise SubjectError(
                f"generate() took {taken} tokens for {member.id}, expected "
                f"{member.length - member.prompt}"
            )
    return observed


def run(
    subject: Subject,
    plan: Plan,
    tokens: Tokens,
    *,
    temperatures: Sequence[float],
    choose: Choose | None = None,
    keep: frozenset[tuple[int, int]] = frozenset(),
    before: Tokens | None = None,
    watch: Watch | None = None,
) -> Record:
    """Compute ``plan`` and keep its compared rows.

    ``tokens[i]`` are the known tokens of member ``i``; with ``choose`` the missing ones are drawn
    and appended in place, without it all must be known. ``before``: the tokens of the steps before
    a reset (None: the same). ``keep`` names rows to hold whole. ``watch`` looks at the session.

    Raises:
        SubjectError: the subject gave other rows than it was asked for.
        UnsupportedError: the subject cannot do this plan.
    """
    reason = subject.unsupported(plan)
    if reason is not None:
        raise UnsupportedError(reason)
    check_schedule(plan.members, plan.schedule, plan.actions)
    watch = watch or Watch()
    collector = _Collector(subject, tokens, temperatures, choose, keep)
    with torch.inference_mode(), record_launches() as log:
        if plan.generate:
            observed = _run_generate(subject, plan, collector)
        else:
            with at_work():
                session = subject.session(plan.members, plan.layout)
            watch.opened(session)
            _run_steps(session, plan, collector, watch, before)
            watch.ended(session)
            observed = session.observed()
    return collector.finish(plan, observed, {"counts": dict(log.counts), "kernels": log.kernels})

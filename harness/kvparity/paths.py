"""Path names turned into plans: who is in the batch, in which steps, in which layout.

Sequence ``i`` has a prompt of ``p`` tokens and ``n`` tokens in the end. Its compared rows are the
positions ``p-1 .. n-2``, from which the tokens ``p .. n-1`` were drawn. Paths of the prefill kind
are given all ``n`` tokens, as a trainer would; decoding stops at position ``n-2``, as a rollout
does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from kvparity.schedule import Layout, Member, Plan, Schedule, Span, Step
from kvparity.workload import Prompts
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class _Sequence:
    index: int
    prompt: int
    total: int

    def prefill(self, start: int = 0, stop: int | None = None) -> Span:
        """A chunk of the whole sequence, with the compared rows that fall into it."""
        end = self.total if stop is None else stop
        first = min(max(start, self.prompt - 1), end)
        last = max(first, min(end, self.total - 1))
        return Span(self.index, start, end, rows_from=first, rows_to=last)

    def decode(self, position: int) -> Span:
        return Span(self.index, position, position + 1, rows_from=position, decode=True)

    def rollout(self) -> list[Span]:
        """The prompt in one span, then one span per generated token but the last."""
        spans = [Span(self.index, 0, self.prompt, rows_from=self.prompt - 1)]
        spans += [self.decode(position) for position in range(self.prompt, self.total - 1)]
        return spans


def strangers(prompts: Prompts) -> tuple[Member, ...]:
    """Batch neighbours that nobody compares, of lengths that the workload does not have.

    Their names cannot be a workload's, so no data is shared with what is compared.
    """
    wanted = (2, min(max(len(p) for p in prompts.prompts), 96) + 5)
    taken = {len(p) for p in prompts.prompts}
    members = []
    for number, length in enumerate(wanted):
        while length in taken:
            length += 1
        taken.add(length)
        members.append(Member(f"(stranger)/{number}", length + prompts.generate, length))
    return tuple(members)


def build(path: PathName, prompts: Prompts, *, seed: int) -> Plan:
    """The plan of one path over one workload."""
    members = tuple(
        Member(name, prompts.length(i), len(prompts.prompts[i]))
        for i, name in enumerate(prompts.ids)
    )
    own = [_Sequence(i, len(p), members[i].length) for i, p in enumerate(prompts.prompts)]
    others = strangers(prompts)
    extra = [_Sequence(len(own) + i, other.prompt, other.length) for i, other in enumerate(others)]
    kind, argument = path.kind, path.argument or 0
    if kind == "generate":
        return Plan(members, (), Layout(), generate=True)
    if kind == "prefill":
        return Plan(members, tuple((s.prefill(),) for s in own), Layout())
    if kind == "decode":
        return Plan(members, tuple((span,) for s in own for span in s.rollout()), Layout())
    if kind == "chunked":
        return Plan(members, _chunked(own, argument), Layout())
    if kind == "permuted":
        return Plan(members + others, (_shuffled(own + extra, len(own), seed),), Layout())
    if kind == "batched":
        return Plan(members + others, _together(own, extra), Layout())
    if kind == "mixed":
        return Plan(members + others, _staggered(own, extra), Layout())
    if kind == "paged":
        return Plan(members, _together(own, []), Layout(page=argument))
    if kind == "padded-left":
        return Plan(members, _together(own, []), Layout(batch="left"))
    if kind == "padded-right":
        return Plan(members, _together(own, []), Layout(batch="right"))
    raise ValueError(f"no schedule is known for path {path}")


def _chunked(own: list[_Sequence], size: int) -> Schedule:
    return tuple(
        (s.prefill(start, min(start + size, s.total)),)
        for s in own
        for start in range(0, s.total, size)
    )


def _silent(span: Span) -> Span:
    """The same span with no rows wanted: a stranger's."""
    return Span(span.sequence, span.start, span.stop, rows_from=span.stop, decode=span.decode)


def _spans(own: list[_Sequence], extra: list[_Sequence]) -> list[list[Span]]:
    return [s.rollout() for s in own] + [[_silent(x) for x in s.rollout()] for s in extra]


def _together(own: list[_Sequence], extra: list[_Sequence]) -> Schedule:
    """All prompts in one step, then all decode side by side."""
    columns = _spans(own, extra)
    steps = max(len(column) for column in columns)
    return tuple(tuple(c[i] for c in columns if i < len(c)) for i in range(steps))


def _staggered(own: list[_Sequence], extra: list[_Sequence]) -> Schedule:
    """Each sequence enters one step after the one before it, so prompts meet decoding rows.

    The strangers enter last, while the compared sequences decode.
    """
    columns = _spans(own, extra)
    steps = max(len(column) + delay for delay, column in enumerate(columns))
    return tuple(
        tuple(c[i - delay] for delay, c in enumerate(columns) if 0 <= i - delay < len(c))
        for i in range(steps)
    )


def _shuffled(everyone: list[_Sequence], compared: int, seed: int) -> Step:
    """One packed step in an order that is never the members' own."""
    order = list(range(len(everyone)))
    random.Random(seed).shuffle(order)
    if order == sorted(order):
        order.reverse()
    spans = [everyone[i].prefill() for i in order]
    return tuple(s if s.sequence < compared else _silent(s) for s in spans)

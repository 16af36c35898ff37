"""Path names turned into plans: who is in the batch, in which steps, in which layout.

Sequence ``i`` has a prompt of ``p`` tokens and ``n`` tokens in all. Its compared rows are the
positions ``p-1 .. n-2``, from which the tokens ``p .. n-1`` were drawn. Paths of the prefill kind
are given all ``n`` tokens, as a trainer would; decoding stops at position ``n-2``, as a rollout
does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import cast

from kvparity.plan.schedule import FULL, Action, Layout, Member, Plan, Program, Schedule, Span, Step
from kvparity.plan.thinned import thinned
from kvparity.plan.workload import Prompts
from kvparity.plan.written import plan_of
from kvparity_contracts.chosen import BY_PREFILL
from kvparity_contracts.draws import ANYTHING, DrawMeans, draw
from kvparity_contracts.paths import PathName
from kvparity_contracts.steps import WrittenSteps


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

    def rollout(self, chunk: int = 0) -> list[Span]:
        """The prompt in spans of ``chunk`` (0: in one), then a span per token but the last."""
        size = chunk or self.prompt
        spans = [
            self.prefill(start, min(start + size, self.prompt))
            for start in range(0, self.prompt, size)
        ]
        spans += [self.decode(position) for position in range(self.prompt, self.total - 1)]
        return spans

    def verified(self, size: int) -> list[Span]:
        """The prompt, then spans of ``size`` tokens, of which ever more are rejected.

        Of the first span none is, if the sequence is the first; of the next one its last draft, and
        so on until all drafts of one are, then none again.
        """
        spans, start, turn = [self.prefill(0, self.prompt)], self.prompt, self.index
        while start < self.total - 1:
            stop = min(start + size, self.total - 1)
            rejected = turn % (stop - start)
            whole = Span(self.index, start, stop, start, rows_to=stop - rejected, verify=True)
            spans.append(replace(whole, rejected=rejected))
            start, turn = stop - rejected, turn + 1
        return spans


ALIKE = 2
"""Strangers beside each sequence of the path ``uniform``."""


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


def build(path: PathName, prompts: Prompts, *, seed: int, given: DrawMeans = ANYTHING) -> Plan:
    """The plan of one path over one workload; ``given``: of what a draw may be made."""
    written = steps_of(path, prompts, seed, given)
    plan = _build(path, prompts, seed) if written is None else plan_of(written, prompts)
    if prompts.rows is not None:
        plan = thinned(plan, prompts, by_decode=path.kind not in BY_PREFILL)
    chunk = max((span.stop - span.start for step in plan.schedule for span in step), default=0)
    return replace(plan, layout=replace(plan.layout, chunk=chunk))


def steps_of(path: PathName, prompts: Prompts, seed: int, given: DrawMeans) -> WrittenSteps | None:
    """What is written or drawn, or None for a path by name."""
    if path.kind == "steps":
        return WrittenSteps.parse(path.steps)
    if path.kind != "drawn":
        return None
    lengths = tuple(map(len, prompts.prompts))
    return draw(path.argument or 0, seed, prompts.name, lengths, prompts.generate, given)


def _build(path: PathName, prompts: Prompts, seed: int) -> Plan:
    members = tuple(
        Member(name, prompts.length(i), len(prompts.prompts[i]))
        for i, name in enumerate(prompts.ids)
    )
    own = [_Sequence(i, len(p), members[i].length) for i, p in enumerate(prompts.prompts)]
    others = strangers(prompts)
    extra = [_Sequence(len(own) + i, other.prompt, other.length) for i, other in enumerate(others)]
    kind, argument = path.kind, path.argument or 0
    alone = tuple((span,) for s in own for span in s.rollout())
    if kind == "generate":
        return Plan(members, (), Layout(), generate=True)
    if kind in ("prefill", "uncached"):
        return Plan(members, tuple((s.prefill(),) for s in own), Layout(cached=kind == "prefill"))
    if kind == "decode":
        return Plan(members, alone, Layout())
    if kind in ("exported", "compiled"):
        return Plan(members, alone, Layout(program=cast(Program, kind)))
    if kind == "chunked":
        return Plan(members, _chunked(own, argument), Layout())
    if kind == "streamed":
        steps = tuple((span,) for s in own for span in s.rollout(chunk=argument))
        return Plan(members, steps, Layout())
    if kind == "reset":
        before = tuple(tuple(map(_silent, step)) for step in alone)
        return Plan(members, before + alone, Layout(), actions=(Action(len(before), "reset"),))
    if kind in ("prefix", "prefix-paged"):
        return _prefixed(members, own, argument, Layout(page=path.page))
    if kind == "permuted":
        return Plan(
            members + others, (_shuffled(own + extra, len(own), seed),), Layout(empties=True)
        )
    if kind == "batched":
        if argument:
            return _sized(members, own, argument)
        return Plan(members + others, _together(own, extra), Layout(empties=True))
    if kind == "verify":
        spans = [s.verified(argument + 1) for s in own]
        spans += [[_silent(span) for span in s.verified(argument + 1)] for s in extra]
        schedule = tuple(tuple(filter(None, step)) for step in zip_longest(*spans))
        return Plan(members + others, schedule, Layout(empties=True))
    if kind == "far":
        return Plan(members, _prompts_alone(own), Layout(far=True))
    if kind == "uniform":
        return _uniform(members, own)
    if kind == "mixed":
        return Plan(members + others, _staggered(own, extra), Layout(empties=True))
    if kind == "paged":
        return Plan(members, _together(own, []), Layout(page=path.page))
    if kind == "padded-left":
        return Plan(members, _together(own, []), Layout(batch="left"))
    if kind == "padded-right":
        return Plan(members, _together(own, []), Layout(batch="right"))
    raise ValueError(f"no schedule is known for path {path}")


def _prefixed(
    members: tuple[Member, ...], own: list[_Sequence], tokens: int, layout: Layout
) -> Plan:
    """Each sequence begins with ``tokens`` tokens that a donor has in the cache.

    The donor has gone on by one token of its own before they are taken over, and goes on by
    another while the sequence decodes: neither may see what the other writes. A prompt that does
    not go on behind the prefix is computed as in ``decode``.
    """
    donors: list[Member] = []
    steps: list[Step] = []
    actions: list[Action] = []
    for s in own:
        if s.prompt <= tokens:
            steps += [(span,) for span in s.rollout()]
            continue
        index, name = len(own) + len(donors), members[s.index].id
        donors.append(Member(f"(donor)/{name}", tokens + 2, tokens + 1, like=name, shared=tokens))
        first, *rest = s.rollout()
        steps.append((Span(index, 0, tokens + 1, rows_from=tokens + 1),))
        actions.append(Action(len(steps), "adopt", s.index, donor=index, tokens=tokens))
        steps.append((replace(first, start=tokens),))
        # Where it can, the donor writes to a position that the sequence has filled already.
        before = 1 if len(rest) > 1 else 0
        steps += [(span,) for span in rest[:before]]
        steps.append((Span(index, tokens + 1, tokens + 2, rows_from=tokens + 2, decode=True),))
        steps += [(span,) for span in rest[before:]]
    return Plan(members + tuple(donors), tuple(steps), layout, actions=tuple(actions))


def _chunked(own: list[_Sequence], size: int) -> Schedule:
    return tuple(
        (s.prefill(start, min(start + size, s.total)),)
        for s in own
        for start in range(0, s.total, size)
    )


def _silent(span: Span) -> Span:
    """The same span with no rows wanted: a stranger's."""
    return replace(span, rows_from=span.stop, rows_to=span.stop)


def _spans(own: list[_Sequence], extra: list[_Sequence]) -> list[list[Span]]:
    return [s.rollout() for s in own] + [[_silent(x) for x in s.rollout()] for s in extra]


def _together(own: list[_Sequence], extra: list[_Sequence]) -> Schedule:
    """All prompts in one step, then all decode side by side."""
    return tuple(zip(*_spans(own, extra), strict=True))


def _prompts_alone(own: list[_Sequence]) -> Schedule:
    """Each prompt in a step of its own, then all decode side by side."""
    prompts = tuple((s.rollout()[0],) for s in own)
    return prompts + _together(own, [])[1:]


def _sized(members: tuple[Member, ...], own: list[_Sequence], size: int) -> Plan:
    """At most ``size`` sequences side by side, and strangers that make up that number.

    The strangers have few tokens, so that many of them cost little. They sit between the first
    sequence and the others, or before the only one: what is compared lies at the end of the batch,
    where a kernel that is wrong from some row on is wrong.
    """
    strangers: list[Member] = []
    steps: list[Step] = []
    for start in range(0, len(own), size):
        group = own[start : start + size]
        between = []
        for number in range(size - len(group)):
            prompt, index = 1 + number % 3, len(own) + len(strangers)
            stranger = _Sequence(index, prompt, prompt + own[0].total - own[0].prompt)
            between.append(stranger)
            name = f"(stranger)/{size}/{start}/{number}"
            strangers.append(Member(name, stranger.total, prompt))
        ahead = len(group) > 1
        columns = [*_spans(group[:ahead], between), *_spans(group[ahead:], [])]
        steps += zip(*columns, strict=True)
    return Plan(members + tuple(strangers), tuple(steps), Layout())


def _uniform(members: tuple[Member, ...], own: list[_Sequence]) -> Plan:
    """Each sequence among ``ALIKE`` strangers of its length: all rows of a step see as many keys.

    Kernels may have a way of their own for such batches, which no batch of different lengths takes,
    and one for a cache that is full: the longest fills it to its last slot.
    """
    strangers: list[Member] = []
    steps: list[Step] = []
    for s in own:
        extra = []
        for number in range(ALIKE):
            extra.append(replace(s, index=len(own) + len(strangers)))
            name = f"(stranger)/{members[s.index].id}/{number}"
            strangers.append(replace(members[s.index], id=name))
        steps += _together([s], extra)
    return Plan(members + tuple(strangers), tuple(steps), Layout(slack=FULL))


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

"""Small decoders with every feature, and plans run over them: rows by (sequence, position)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kvparity.plan.paths import build
from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.plan.workload import Prompts
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.seeded import seeded, with_scales
from kvparity.subjects.decoder.session import DecoderSession
from kvparity.subjects.decoder.storage import store_format
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_contracts.paths import PathName
from kvparity_kernels.order import ReductionOrder

CPU = torch.device("cpu")
ORDER = ReductionOrder(split=32, tile=16, block_m=16)
Rows = dict[tuple[int, int], Tensor]


def config(**changes: Any) -> DecoderShape:
    """One layer of the tiny decoder, narrow beside attention."""
    small = {"layers": 1, "hidden": 32, "intermediate": 32, "max_positions": 64}
    return replace(preset("tiny"), **small | changes)


@cache
def decoder(
    store: str = "float32",
    *,
    execution: torch.dtype = torch.float32,
    heads_first: bool = False,
    ring: bool = False,
    **changes: Any,
) -> DecoderSubject:
    """A seeded decoder of that shape, with scales where its store takes any."""
    shape = config(**changes)
    weights = seeded(shape, 0, execution, CPU)
    return DecoderSubject(
        shape,
        with_scales(shape, weights, store_format(store), 0),
        kv_cache=store,
        heads_first=heads_first,
        ring=ring,
        order=ORDER,
        twin=True,
    )


def prompts(*lengths: int, generate: int = 4) -> Prompts:
    """Prompts of these lengths; what is generated is made up as well."""
    names = tuple("abcdefgh"[: len(lengths)])
    return Prompts(
        "w",
        names,
        tuple(tuple(tokens(name, n)) for name, n in zip(names, lengths, strict=True)),
        generate,
    )


def tokens(name: str, length: int) -> list[int]:
    """Token ids of a sequence, by its name."""
    salt = sum(map(ord, name))
    return [(41 * n * n + 7 * n * salt + 3 * salt) % 256 for n in range(length)]


def plan(path: str, given: Prompts) -> Plan:
    """The plan of a path."""
    return build(PathName.parse(path), given, seed=0)


def ids_of(members: tuple[Member, ...]) -> list[list[int]]:
    """The tokens of every member; a donor begins like the one that it gives to."""
    found = []
    for member in members:
        own = tokens(member.id, member.length)
        if member.like:
            own[: member.shared] = tokens(member.like, member.shared)
        found.append(own)
    return found


def act(session: DecoderSession, which: Plan, step: int) -> None:
    """Do what happens before a step."""
    for action in which.actions:
        if action.step == step and action.kind == "reset":
            session.reset()
        elif action.step == step:
            session.adopt(action.sequence, action.donor, action.tokens)


def play(session: DecoderSession, which: Plan) -> Rows:
    """Run a plan; rows of an earlier use of the session are not kept."""
    rows: Rows = {}
    ids = ids_of(which.members)
    for number, step in enumerate(which.schedule):
        act(session, which, number)
        early = number < which.warm_up
        known = [[(7 * x + 5) % 256 for x in one] for one in ids] if early else ids
        found = forward(session, step, known)
        rows |= {} if early else found
    return rows


def forward(session: DecoderSession, step: Step, ids: list[list[int]]) -> Rows:
    """Run one step."""
    places = [(span.sequence, position) for span in step for position in span.rows]
    given = [ids[span.sequence][span.start : span.stop] for span in step]
    blocks = list(session.forward(step, given))
    return dict(zip(places, torch.cat(blocks) if blocks else [], strict=True))


def run(subject: DecoderSubject, path: str, given: Prompts, **layout: Any) -> Rows:
    """The rows of a path, in a layout of one's own."""
    which = plan(path, given)
    which = replace(which, layout=replace(which.layout, **layout))
    assert subject.unsupported(which) is None
    return play(subject.session(which.members, which.layout), which)


def differing(left: Rows, right: Rows) -> list[tuple[int, int]]:
    """Places whose bits differ; both must have the same rows, in float32 and finite."""
    assert left.keys() == right.keys()
    assert left
    for row in (*left.values(), *right.values()):
        assert row.dtype == torch.float32
        assert row.isfinite().all()
    return [x for x in left if not left[x].view(torch.int32).equal(right[x].view(torch.int32))]


def span(start: int, stop: int, sequence: int = 0, *, decode: bool = False) -> Span:
    """A span whose last row is wanted."""
    return Span(sequence, start, stop, rows_from=stop - 1, decode=decode)


def one(length: int, **layout: Any) -> tuple[tuple[Member, ...], Layout]:
    """A session's arguments for one sequence of that length."""
    return (Member("a", length),), Layout(**layout)

"""What a step brings: queries of its rows, and keys and values that no earlier step wrote."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.plan.schedule import Member, Span
from kvparity.subjects.pair.append import FreshKeys
from kvparity.subjects.pair.model import PairModel


def fresh(
    subject: PairModel, member: Member, span: Span, ids: Sequence[int], *, held: bool
) -> tuple[Tensor, FreshKeys]:
    """Queries ``[n, Hq, D]`` of a span, and its keys and values; none of one that only fills.

    A donor's shared tokens are those of the sequence it is like. A token id other than 0 stands for
    other data under the same name. Keys of an encoder (``subject.cross``) come whole, and not again
    once they are ``held``.
    """
    names = [
        (member.like if p < member.shared else member.id) + (f"~{token}" if token else "")
        for p, token in zip(range(span.start, span.stop), ids, strict=True)
    ]
    parts, start = [], 0
    while start < len(names):
        stop = start
        while stop < len(names) and names[stop] == names[start]:
            stop += 1
        first = span.start + span.position_shift
        places = _positions(subject, first + start, first + stop)
        parts.append(subject.draw(names[start], places, queries=not span.fill))
        start = stop
    q, k, v = parts[0] if len(parts) == 1 else (torch.cat(x) for x in zip(*parts, strict=True))
    if subject.cross is None:
        return q, FreshKeys(span.sequence, span.start, k, v)
    keys = _positions(subject, 0, 0 if held else subject.keys(member.id, span.stop))
    return q, FreshKeys(span.sequence, 0, *subject.draw(names[0], keys)[1:])


def _positions(subject: PairModel, start: int, stop: int) -> Tensor:
    return torch.arange(start, stop, dtype=torch.int64, device=subject.device)

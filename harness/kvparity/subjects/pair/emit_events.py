"""Tells a listener of the rows that a pair computed, from what its kernels were given."""

from __future__ import annotations

from operator import itemgetter

import torch
from torch import Tensor

from kvparity.plan.schedule import Span
from kvparity.subjects import events
from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.pair.model import PairModel
from kvparity_kernels.attention import naive


def attended(
    subject: PairModel,
    listener: events.Listener,
    span: Span,
    q: Tensor,
    rows: Tensor,
    given: StoredKV,
    coded: bool,
) -> None:
    """Report the wanted rows of one span: q ``[n, Hq, D]`` and what came back for it."""
    wanted = listener.wants(span.sequence, range(span.start, span.stop))
    if not wanted:
        return
    heads = subject.heads
    k, v = (subject.decoded(part, given) for part in "kv") if coded else (given.k, given.v)
    width, terms = heads.out, subject.terms()
    for position in wanted:
        i = position - span.start
        first = max(0, position + 1 - subject.window) if subject.window else 0
        keys = torch.arange(first, position + 1, device=q.device)
        out = rows[i, :width].view(heads.query, heads.values).to(subject.execution)
        listener.attended(
            events.Attended(
                layer=0,
                sequence=span.sequence,
                position=position,
                told=None,
                length=position + 1,
                first=first,
                q=q[i],
                k=k[first : position + 1],
                v=v[first : position + 1],
                out=out,
                lse=rows[i, width:] if rows.shape[1] > width else None,
                scale=subject.scale,
                softcap=subject.softcap,
                sinks=terms.sinks,
                bias=naive.score_bias(position - keys, terms.alibi_slopes, terms.bias),
                decode=span.decode,
            )
        )


def part(given: StoredKV, keys: slice) -> StoredKV:
    """Some keys of packed ones; scales that belong to no token stay whole."""
    return given.each(itemgetter(keys))


def row(given: StoredKV, at: int, table: Tensor | None) -> StoredKV:
    """The keys and scales of one row of a rectangle; with a block table, of its pages."""
    if table is None:
        return given.each(itemgetter(at))
    pages = table[at].long()
    return given.each(lambda x: x[pages].flatten(0, 1))

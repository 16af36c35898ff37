"""Sequences without a token in a call, as engines pass them: padding of a captured batch.

A sequence of no query and no key gives no row. A row of decode that sees no key (``kv_lens`` 0) is
of no sequence, yet it must be 0 with an LSE of minus infinity (the sum over no key; flash-attention
writes plus infinity, which is taken, too): what is not finite there reaches other rows through
whatever looks at the whole batch after attention, a scale of it for one
(vllm-project/vllm#37442, deepseek-ai/FlashMLA#11). Where the number of keys of such a row is left
from another batch, its keys are anything, and so is the row; but it may not reach others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.plan.schedule import Span

STALE = 1
"""Keys of padding that is left from another batch: its slot holds nothing now."""
MOST = 16
"""Empty sequences behind the first of a prefill call."""


def with_empties(spans: Sequence[Span]) -> list[Span | None]:
    """The sequences of one prefill call; None is an empty one.

    One comes first, one last, and behind the first sequence so many that their numbers reach the
    first compared row: an early exit that takes the number of a sequence for that of a row then
    hits what is compared. There are never more sequences than rows, or it would hit none.
    """
    first, *rest = spans
    room = sum(span.stop - span.start for span in spans) - len(spans)
    ends = [None] * min(room, 1), [None] * (room > 1)
    between = min(max(_first_wanted(spans) - 1, 1), MOST, room - len(ends[0]) - len(ends[1]))
    return [*ends[0], first, *[None] * between, *rest, *ends[1]]


@dataclass(frozen=True)
class Decoded:
    """One sequence of a decode call: so many ``rows`` at the end of so many ``keys``.

    ``span``: None for padding. ``sequence``: whose cache it is.
    """

    sequence: int
    keys: int
    rows: int
    span: Span | None = None


def decoded(
    spans: Sequence[tuple[Span, int]], *, empties: bool, first: int, last: int, rows: bool
) -> list[Decoded]:
    """The sequences of one decode call, each with so many keys.

    ``empties``: a first and a last one without keys, in caches that hold nothing: ``first``, and
    ``last`` and the next one. Before the last one comes padding whose number of keys is left from
    another batch, of which nothing is asked; and where a sequence may have any number of ``rows``,
    one behind the first compared one has none, and such a number, too.
    """
    found = [Decoded(s.sequence, keys, s.stop - s.start, s) for s, keys in spans]
    if not empties:
        return found
    left = [Decoded(first, STALE, 0)] if rows else []
    padding = [Decoded(last, STALE, 1), Decoded(last + 1, 0, 1)]
    return [Decoded(first, 0, 1), found[0], *left, *found[1:], *padding]


def _first_wanted(spans: Sequence[Span]) -> int:
    """The packed row that is compared first, 0 where none is."""
    before = 0
    for span in spans:
        if len(span.rows):
            return before + span.rows.start - span.start
        before += span.stop - span.start
    return 0


def sizes(
    sequences: Sequence[Span | None], keys: Callable[[Span], int]
) -> tuple[list[int], list[int]]:
    """Queries and ``keys`` of each sequence."""
    queries = [0 if each is None else each.stop - each.start for each in sequences]
    return queries, [0 if each is None else keys(each) for each in sequences]


def fault_of(name: str, rows: Tensor, width: int, *, sinks: Tensor | None = None) -> str | None:
    """What is wrong with rows ``[n, width (+ Hq)]`` that see no key, or None.

    ``sinks`` ``[Hq]``: the LSE counts them, so it may also be the sink's logit.
    """
    out, lse = rows[:, :width], rows[:, width:]
    wrong = out[out != 0]
    if len(wrong):
        return f"{name} gave {_named(wrong[0])} in a row with kv_lens 0; expected 0"
    right = torch.isinf(lse)
    if sinks is not None and lse.shape[1]:
        right |= torch.isclose(lse, sinks.expand_as(lse), rtol=1e-5, atol=1e-5)
    wrong = lse[~right]
    if len(wrong):
        expected = "-inf" if sinks is None else "-inf, or the logit of its sink"
        return (
            f"{name} gave an LSE of {_named(wrong[0])} for a row with kv_lens 0; "
            f"expected {expected}"
        )
    return None


def _named(value: Tensor) -> str:
    return f"{float(value):.3g}"

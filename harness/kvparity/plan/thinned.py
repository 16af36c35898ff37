"""Plans of long prompts of which chosen rows are compared: what nobody reads only fills a cache.

A span of a prompt becomes pieces. Chosen rows are computed in the blocks of queries that a kernel
would compute with them, where the path is a prefill, and one at a time where it decodes; between
them are spans that fill the cache, in steps of their own. What decodes in the plan stays as it is,
beside the last piece of each prompt of its step, so that prompts still meet decoding rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kvparity.plan.schedule import Plan, Span, Step
from kvparity.plan.workload import Prompts

FILL = 256
"""Rows that one step fills at most: it bounds what a subject holds for them."""


def thinned(plan: Plan, prompts: Prompts, *, by_decode: bool) -> Plan:
    """The same plan, with attention for the compared rows and their blocks alone."""
    steps: list[Step] = []
    for step in plan.schedule:
        split = [_pieces(span, prompts, by_decode=by_decode) for span in step]
        rounds = max(map(len, split))
        filled = [span.start for span in step]
        for turn in range(rounds):
            together = []
            for i, pieces in enumerate(split):
                at = turn - (rounds - len(pieces))  # the last pieces come together
                if at >= 0:
                    steps += _filling(step[i], filled[i], pieces[at].start)
                    together.append(pieces[at])
                    filled[i] = pieces[at].stop
            if together:
                steps.append(tuple(together))
        for span, reached in zip(step, filled, strict=True):
            steps += _filling(span, reached, span.stop)
    return replace(plan, schedule=tuple(steps))


def _filling(span: Span, start: int, stop: int) -> Iterator[Step]:
    for first in range(start, stop, FILL):
        last = min(first + FILL, stop)
        yield (replace(span, start=first, stop=last, rows_from=last, rows_to=None, fill=True),)


def _pieces(span: Span, prompts: Prompts, *, by_decode: bool) -> list[Span]:
    """The parts of a span that are computed, in order."""
    if span.decode:
        return [span]
    assert prompts.rows is not None  # or there is nothing to thin
    if span.sequence >= len(prompts.rows):  # a neighbour: its last block, or all if it is short
        start = max(span.start, span.stop - prompts.block)
        return [replace(span, start=start)]
    chosen = [row for row in prompts.rows[span.sequence] if span.start <= row < span.stop]
    if by_decode:
        singles = [_single(span, row) for row in chosen]
        return [*singles, *_blocks(span, [*span.rows], prompts.block, after=chosen)]
    return _blocks(span, sorted({*chosen, *span.rows}), prompts.block)


def _single(span: Span, row: int) -> Span:
    return replace(span, start=row, stop=row + 1, rows_from=row, rows_to=row + 1, decode=True)


def _blocks(span: Span, rows: Sequence[int], block: int, after: Sequence[int] = ()) -> list[Span]:
    """Rows that follow each other, with the rest of the blocks of queries that they lie in.

    Blocks begin where the span begins, as the programs of its one call would.
    """
    pieces: list[Span] = []
    filled = max((row + 1 for row in after), default=span.start)
    for first, stop in runs(rows):
        begin = max(span.start + (first - span.start) // block * block, filled)
        end = min(span.start - (span.start - stop) // block * block, span.stop)
        if begin > first:  # the block of the rows before it goes on behind it
            pieces[-1] = replace(pieces[-1], stop=first)
            begin = first
        pieces.append(replace(span, start=begin, stop=end, rows_from=first, rows_to=stop))
        filled = end
    return pieces


def runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows that follow each other, as (first, behind the last)."""
    start = None
    for row, following in zip(rows, [*rows, None][1:], strict=True):
        start = row if start is None else start
        if following != row + 1:
            yield start, row + 1
            start = None

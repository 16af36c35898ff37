"""Schedules as values: which positions of which sequences each forward call computes together.

Full prefill, chunked prefill, decode, continuous batching and a permuted batch differ only in
their list of steps, so they can be enumerated, compared and replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Batch = Literal["packed", "left", "right"]


@dataclass(frozen=True)
class Member:
    """One sequence as a session sees it: its name (which keys all its data) and its lengths.

    ``length`` counts prompt and continuation, ``prompt`` the tokens that are given.
    """

    id: str
    length: int
    prompt: int = 1


@dataclass(frozen=True)
class Span:
    """Positions ``start .. stop-1`` of one sequence, computed in one forward call.

    ``sequence`` is the index of the member in its session. Logits are wanted at the positions
    ``rows_from .. rows_to-1`` (``rows_to`` None: up to the end; equal: none). ``decode`` asks for
    the single-query path and needs ``stop == start + 1``; a chunk of one token without it goes
    through the prefill path. ``position_shift`` is added to every position that the model is told;
    anything but 0 is a planted defect.
    """

    sequence: int
    start: int
    stop: int
    rows_from: int
    decode: bool = False
    position_shift: int = 0
    rows_to: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"an empty or negative span: {self.start}..{self.stop}")
        if not self.start <= self.rows.start <= self.rows.stop <= self.stop:
            raise ValueError(f"rows {self.rows} outside {self.start}..{self.stop}")
        if self.decode and self.stop != self.start + 1:
            raise ValueError("a decode span holds exactly one position")

    @property
    def rows(self) -> range:
        """The positions whose logits are wanted."""
        return range(self.rows_from, self.stop if self.rows_to is None else self.rows_to)


Step = tuple[Span, ...]
Schedule = tuple[Step, ...]


@dataclass(frozen=True)
class Layout:
    """How a step and its cache lie in memory.

    ``batch``: ``packed`` (cu_seqlens), or a rectangle padded on the ``left`` or ``right``.
    ``page``: slots per page, 0 for a contiguous cache. ``slack``: unused slots behind each
    sequence. All unused slots hold NaN.
    """

    batch: Batch = "packed"
    page: int = 0
    slack: int = 3


@dataclass(frozen=True)
class Plan:
    """What one path does with a workload: its members (strangers last), steps and layout."""

    members: tuple[Member, ...]
    schedule: Schedule
    layout: Layout
    generate: bool = False  # the subject's own generate() loop instead of the steps


def check_schedule(members: Sequence[Member], schedule: Iterable[Step]) -> None:
    """Raise ``ValueError`` unless every sequence is computed once, in order and without a gap."""
    filled = [0] * len(members)
    for number, step in enumerate(schedule):
        seen = set()
        for span in step:
            if span.sequence in seen:
                raise ValueError(f"step {number} holds two spans of sequence {span.sequence}")
            seen.add(span.sequence)
            if span.start != filled[span.sequence]:
                raise ValueError(
                    f"step {number}: sequence {span.sequence} is filled to "
                    f"{filled[span.sequence]}, but the span starts at {span.start}"
                )
            filled[span.sequence] = span.stop
            if span.stop > members[span.sequence].length:
                raise ValueError(f"step {number} runs past the end of sequence {span.sequence}")

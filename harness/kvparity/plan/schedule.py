"""Schedules as values: which positions of which sequences each forward call computes together.

Full prefill, chunked prefill, decode, continuous batching and a permuted batch differ only in
their list of steps, so they can be enumerated, compared and replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Batch = Literal["packed", "left", "right"]
Program = Literal["eager", "exported", "compiled"]


@dataclass(frozen=True)
class Member:
    """One sequence as a session sees it: its name (which keys all its data) and its lengths.

    ``length`` counts prompt and continuation, ``prompt`` the tokens that are given. The first
    ``shared`` tokens are those of the sequence that ``like`` names: of a donor, whose cache that
    sequence takes over.
    """

    id: str
    length: int
    prompt: int = 1
    like: str = ""
    shared: int = 0


@dataclass(frozen=True)
class Span:
    """Positions ``start .. stop-1`` of one sequence, computed in one forward call.

    ``sequence`` is the index of the member in its session. Logits are wanted at the positions
    ``rows_from .. rows_to-1`` (``rows_to`` None: up to the end; equal: none). ``decode`` asks for
    the single-query path and needs ``stop == start + 1``; a chunk of one token without it goes
    through the prefill path. ``position_shift`` is added to every position that the model is told;
    anything but 0 is a planted defect. ``verify``: one token and drafts behind it, in one call; the
    last ``rejected`` of them hold other ids and count as not computed. ``fill``: nobody reads its
    rows, only their keys and values: attention is computed where later keys depend on it.
    """

    sequence: int
    start: int
    stop: int
    rows_from: int
    decode: bool = False
    position_shift: int = 0
    rows_to: int | None = None
    verify: bool = False
    rejected: int = 0
    fill: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"an empty or negative span: {self.start}..{self.stop}")
        if not self.start <= self.rows.start <= self.rows.stop <= self.stop:
            raise ValueError(f"rows {self.rows} outside {self.start}..{self.stop}")
        if self.rows.stop > max(self.end, self.rows.start):
            raise ValueError(f"rows {self.rows} among {self.rejected} rejected of {self.stop}")
        if self.fill and (len(self.rows) or self.decode or self.verify):
            raise ValueError("a span that only fills a cache has rows that somebody reads")
        if self.decode and self.stop != self.start + 1:
            raise ValueError("a decode span holds exactly one position")

    @property
    def end(self) -> int:
        """The position behind the last one that counts as computed."""
        return self.stop - self.rejected

    @property
    def rows(self) -> range:
        """The positions whose logits are wanted."""
        return range(self.rows_from, self.stop if self.rows_to is None else self.rows_to)


Step = tuple[Span, ...]
Schedule = tuple[Step, ...]


FULL = -1
"""The slack of a cache whose last slot a rollout fills."""


@dataclass(frozen=True)
class Layout:
    """How a step and its cache lie in memory.

    ``batch``: ``packed`` (cu_seqlens), or a rectangle padded on the ``left`` or ``right``.
    ``page``: slots per page, 0 for a contiguous cache. ``slack``: unused slots behind each
    sequence (FULL: none, not even for its last token, which a rollout does not feed back). All
    unused slots hold NaN. ``cached`` False: every sequence comes whole, and its keys
    and values are used fresh, rounded as a cache would round them, without one.
    ``chunk``: the most tokens that one step adds to a sequence (0: any number); a ring needs
    window + chunk - 1 slots. ``program``: what computes a step: the subject's own code, or what
    ``torch.export`` or ``torch.compile`` made of it. ``empties``: kernels of a pair are given
    sequences without a token, too, as engines pass padding. ``far``: the slots of the cache lie so
    far apart that elements beyond 2**31 are read.
    """

    batch: Batch = "packed"
    page: int = 0
    slack: int = 3
    cached: bool = True
    chunk: int = 0
    program: Program = "eager"
    empties: bool = False
    far: bool = False


FAR = "a cache of which few pages are touched: only a pair of kernels takes one"
"""Why other subjects take no ``far`` layout."""


@dataclass(frozen=True)
class Action:
    """What happens to a session before step number ``step``.

    ``reset``: all sequences are forgotten, and what the cache held is poison. ``adopt``:
    ``sequence`` is filled with the first ``tokens`` tokens that ``donor`` has in the cache.
    """

    step: int
    kind: Literal["reset", "adopt"]
    sequence: int = 0
    donor: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Plan:
    """What one path does with a workload: its members (strangers last), steps and layout.

    Steps before a ``reset`` compute other tokens than those that are compared.
    """

    members: tuple[Member, ...]
    schedule: Schedule
    layout: Layout
    generate: bool = False  # the subject's own generate() loop instead of the steps
    actions: tuple[Action, ...] = ()

    @property
    def warm_up(self) -> int:
        """The number of steps before the last reset: an earlier use of the session."""
        return max((each.step for each in self.actions if each.kind == "reset"), default=0)


def _act(filled: list[int], action: Action) -> None:
    if action.kind == "reset":
        filled[:] = [0] * len(filled)
        return
    if filled[action.sequence] or not 0 < action.tokens <= filled[action.donor]:
        raise ValueError(
            f"sequence {action.sequence} (filled to {filled[action.sequence]}) cannot adopt "
            f"{action.tokens} tokens of sequence {action.donor} (filled to "
            f"{filled[action.donor]})"
        )
    filled[action.sequence] = action.tokens


def check_schedule(
    members: Sequence[Member], schedule: Iterable[Step], actions: Sequence[Action] = ()
) -> None:
    """Raise ``ValueError`` unless every sequence is computed once, in order and without a gap.

    What was computed before a ``reset`` counts for nothing; adopted tokens count as computed.
    """
    filled = [0] * len(members)
    for number, step in enumerate(schedule):
        for action in actions:
            if action.step == number:
                _act(filled, action)
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
            filled[span.sequence] = span.end
            if span.stop > members[span.sequence].length:
                raise ValueError(f"step {number} runs past the end of sequence {span.sequence}")

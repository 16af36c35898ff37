"""Steps written out: a schedule as a text, in a contract and in the evidence of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 100_000
"""Characters of a text that is read."""
MOST_OF_STRANGER = 1 << 16
"""Tokens of one, unless a sequence is longer: a digit too many asks for memory that nobody has."""
SLACK = 2
"""Unused slots behind each sequence. No path by name has so many, so that none is the same."""
_PIECE = re.compile(r"([0-9]{1,6}):([0-9]{1,8})(?:-([0-9]{1,8})|(\*))?")
_HEADER = re.compile(r"(page|slack) ([0-9]{1,6})")
RESET = "reset"
_SPANS = r"[0-9]{1,6}:[0-9]{1,8}(-[0-9]{1,8}|\*)?"
_STEP = rf"({RESET}|{_SPANS}( {_SPANS})*)"
STEPS_PATTERN = rf"((page|slack) [0-9]{{1,6}} / ){{0,2}}{_STEP}( / {_STEP})*"
"""Of what ``str`` writes."""
FORM = "steps such as 'steps(0:0-4 1:0-2 / 0:5* 1:3*)'"


@dataclass(frozen=True)
class WrittenSpan:
    """Positions ``start .. stop-1`` of a sequence in one step; ``decode``: by one query."""

    sequence: int
    start: int
    stop: int
    decode: bool = False

    def __str__(self) -> str:
        """``0:5*`` decodes position 5, ``0:5-7`` computes 5 to 7, ``0:5`` position 5 alone."""
        last = "" if self.stop == self.start + 1 else f"-{self.stop - 1}"
        return f"{self.sequence}:{self.start}{'*' if self.decode else last}"


@dataclass(frozen=True)
class WrittenSteps:
    """A schedule: steps of pieces, where an empty one stands for a reset, and how a cache lies.

    Sequences behind a workload's own are strangers, which nobody compares. ``page``: slots of a
    page, 0 for a contiguous cache. ``slack``: unused slots behind each sequence.
    """

    steps: tuple[tuple[WrittenSpan, ...], ...]
    page: int = 0
    slack: int = SLACK

    @classmethod
    def parse(cls, text: str) -> WrittenSteps:
        """Read what ``str`` wrote.

        Raises:
            ValueError: the first word that is none of it.
        """
        if len(text) > LONGEST:
            raise ValueError(f"found {len(text)} characters")
        given: dict[str, int] = {}
        steps: list[tuple[WrittenSpan, ...]] = []
        for part in (each.strip() for each in text.split("/")):
            header = _HEADER.fullmatch(part)
            if header and not steps and header[1] not in given:
                given[header[1]] = int(header[2])
            else:
                steps.append(() if part == RESET else tuple(map(_piece, part.split() or [""])))
        if not any(steps):
            raise ValueError("found no step")
        return cls(tuple(steps), given.get("page", 0), given.get("slack", SLACK))

    def __str__(self) -> str:
        head = [f"page {self.page}"] if self.page else []
        head += [f"slack {self.slack}"] if self.slack != SLACK else []
        return " / ".join([*head, *(" ".join(map(str, step)) or RESET for step in self.steps)])

    @property
    def sequences(self) -> int:
        """How many sequences it computes: its own and strangers."""
        return max(piece.sequence for step in self.steps for piece in step) + 1

    @property
    def since_reset(self) -> int:
        """The number of the first step that counts: the one behind the last reset."""
        return max((i + 1 for i, step in enumerate(self.steps) if not step), default=0)

    def wrong(self, lengths: Sequence[int], generate: int) -> str | None:
        """Why it does not compute sequences with prompts of these lengths, or None.

        Each is computed once and in order, to its end or, as a rollout does, but for the last
        token.
        """
        filled = [0] * max(self.sequences, len(lengths))
        most = max(MOST_OF_STRANGER, *(prompt + generate for prompt in lengths))
        for number, step in enumerate(self.steps):
            if not step:
                filled = [0] * len(filled)
            if len({piece.sequence for piece in step}) < len(step):
                return f"step {number} holds a sequence twice"
            for piece in step:
                at = filled[piece.sequence]
                if piece.start != at:
                    return f"step {number} has '{piece}', but {at} tokens are computed before"
                if piece.sequence >= len(lengths) and piece.stop > most:
                    has = f"is computed to {piece.stop} tokens; expected at most {most}"
                    return f"stranger {piece.sequence} {has}"
                filled[piece.sequence] = piece.stop
        for i, prompt in enumerate(lengths):
            total = prompt + generate
            if filled[i] not in (total - 1, total):
                has = f"is computed to {filled[i]} tokens, and has {total - 1} or {total}"
                return f"sequence {i} {has} to compute"
        if 0 in filled[len(lengths) :]:
            return f"stranger {filled.index(0, len(lengths))} computes nothing"
        return None


def _piece(word: str) -> WrittenSpan:
    found = _PIECE.fullmatch(word)
    if not found:
        raise ValueError(f"found {word[:40]!r}")
    start, last = int(found[2]), int(found[3] or found[2])
    if last < start:
        raise ValueError(f"found {word!r}, which ends before it begins")
    return WrittenSpan(int(found[1]), start, last + 1, decode=bool(found[4]))

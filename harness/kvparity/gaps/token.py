"""One token of a comparison, as reports show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenText:
    """Of a token and of those beside it; None: the tokenizer has no such id."""

    before: tuple[str | None, ...]
    token: str | None
    after: tuple[str | None, ...]


@dataclass(frozen=True)
class Token:
    """One compared token. ``before``, ``after``: ids of compared tokens beside it; -1: no id.

    ``text``: None without a tokenizer.
    """

    sequence: str
    position: int
    token_id: int
    rollout: float
    trainer: float
    d: float
    before: tuple[int, ...]
    after: tuple[int, ...]
    text: TokenText | None = None

"""The map of sequences and positions: which token is the worst of each cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kvparity.rollouts.tokens import Longs, Tokens

MOST_ROWS, MOST_COLUMNS = 120, 256
"""Of the map. More sequences than that: those that are farthest apart; more positions: together."""


@dataclass(frozen=True)
class TokenMap:
    """``worst``: number of the token with the largest abs(d) of each cell, [rows, columns]; -1
    where none is compared. ``sequences``: of each row, [rows], in the order of the recording.
    A cell has ``step`` positions, from ``first`` on."""

    worst: Longs
    sequences: Longs
    first: int
    step: int


def token_map(tokens: Tokens) -> TokenMap:
    """Of all compared tokens."""
    size = np.abs(tokens.d)
    first = int(tokens.positions.min()) if tokens.count else 0
    span = int(tokens.positions.max(initial=first)) - first + 1
    step = -(-span // MOST_COLUMNS)
    means = tokens.sums(size) / np.maximum(tokens.lengths, 1)
    chosen = np.sort(np.argsort(-means, kind="stable")[:MOST_ROWS])
    worst = np.full((chosen.size, -(-span // step)), -1, dtype=np.int64)
    for row, sequence in enumerate(chosen):
        start, stop = int(tokens.starts[sequence]), int(tokens.starts[sequence + 1])
        places = (tokens.positions[start:stop] - first) // step
        for column in np.unique(places):
            inside = start + np.flatnonzero(places == column)
            worst[row, column] = inside[size[inside].argmax()]
    return TokenMap(worst, chosen.astype(np.int64), first, step)

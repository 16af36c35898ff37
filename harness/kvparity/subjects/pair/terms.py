"""What the scores of each query head take beside q and k, drawn: the same in every call."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.core.rng import normal, stream, uniform
from kvparity.subjects.attention_calls import HeadTerms
from kvparity.subjects.pair.data import DrawnShape

SPAN = 8
"""ALiBi slopes lie between 2 to the minus so many and 1, as models have them."""


def draw(
    shape: DrawnShape, *, sinks: tuple[float, float] | None, alibi: bool, distances: int
) -> HeadTerms:
    """``sinks``: between which numbers (None: no sinks). ``alibi``: slopes; ``distances``: the
    columns of a bias (0: none)."""
    heads = torch.arange(shape.queries, dtype=torch.int64, device=shape.device)

    def drawn(purpose: str) -> Tensor:
        return uniform(stream(shape.seed, "heads", purpose), heads)

    return HeadTerms(
        sinks=None
        if sinks is None
        else (sinks[0] + drawn("sinks") * (sinks[1] - sinks[0])).float(),
        alibi_slopes=torch.exp2(-SPAN * drawn("slopes")).float() if alibi else None,
        bias=(2 * normal(stream(shape.seed, "heads", "bias"), heads, distances)).float()
        if distances
        else None,
    )

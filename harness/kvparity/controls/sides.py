"""Defects of what two sides recorded, planted in the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kvparity.core.errors import UnsupportedError
from kvparity.rollouts.tokens import Tokens

NOISE = 0.01
"""Of a stale weight, as a share of the spread of its tensor."""


def _unscaled(tokens: Tokens) -> Tokens:
    return replace(tokens, rollout=tokens.rollout * np.float32(0.8))


def _shifted(tokens: Tokens) -> Tokens:
    """Within each sequence; the first token keeps its own."""
    before = np.maximum(np.arange(tokens.count) - 1, np.repeat(tokens.starts[:-1], tokens.lengths))
    return replace(tokens, rollout=tokens.rollout[before])


def _zero(tokens: Tokens) -> Tokens:
    """The token of the middle logprob: neither the one that shows it best nor the worst."""
    rollout = tokens.rollout.copy()
    rollout[np.argsort(rollout, kind="stable")[rollout.size // 2]] = 0
    return replace(tokens, rollout=rollout)


def _foreign(tokens: Tokens) -> Tokens:
    if len(tokens.names) < 2:
        raise UnsupportedError("it takes two sequences")
    parts = np.split(tokens.rollout, tokens.starts[1:-1])
    moved = [np.resize(parts[i - 1], each.size) for i, each in enumerate(parts)]
    return replace(tokens, rollout=np.concatenate(moved))


OF_NUMBERS: Mapping[str, Callable[[Tokens], Tokens]] = {
    "unscaled-logprobs": _unscaled,
    "shifted-logprobs": _shifted,
    "stored-zero": _zero,
    "foreign-sequence": _foreign,
}
"""Planted in the rollout's numbers, whatever gave the trainer's."""


def less(tokens: Tokens, dropped: int) -> Tokens:
    """Without its last ``dropped`` sequences."""
    names = tokens.names[: max(len(tokens.names) - dropped, 0)]
    stop = int(tokens.starts[len(names)])
    columns = ("rollout", "trainer", "positions", "token_ids")
    cut = {name: getattr(tokens, name)[:stop] for name in columns}
    return replace(tokens, names=names, starts=tokens.starts[: len(names) + 1], **cut)


@torch.no_grad()
def disturb(model: nn.Module, seed: int) -> None:
    """Every weight off by noise of :data:`NOISE` of the spread of its tensor."""
    draws = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=draws).to(weight)
        weight.add_(noise * (NOISE * weight.float().std(correction=0)).to(weight))

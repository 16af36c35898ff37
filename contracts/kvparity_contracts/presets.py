"""Decoder shapes that a contract may name, with what a contract needs to know about them.

The shapes themselves belong to the reference decoder; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Preset = Literal["tiny", "qwen3-0.6b", "qwen3-8b", "llama3-8b"]


@dataclass(frozen=True)
class RankShape:
    """What ranks share out of a decoder: query heads, KV heads, the feed-forward width."""

    heads: int
    kv_heads: int
    intermediate_size: int


@dataclass(frozen=True)
class KnownModel:
    """What is known of a model without loading it; None where it is not."""

    max_positions: int | None = None
    vocab_size: int | None = None
    head_dim: int | None = None
    sliding_window: int | None = None
    cut: RankShape | None = None


PRESETS: Mapping[str, KnownModel] = MappingProxyType(
    {
        "tiny": KnownModel(1024, 256, 16, cut=RankShape(8, 2, 128)),
        "qwen3-0.6b": KnownModel(40_960, 151_936, 128, cut=RankShape(16, 8, 3072)),
        "qwen3-8b": KnownModel(40_960, 151_936, 128, cut=RankShape(32, 8, 12288)),
        "llama3-8b": KnownModel(8192, 128_256, 128, cut=RankShape(32, 8, 14336)),
    }
)

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
class KnownModel:
    """What is known of a model without loading it; None where it is not."""

    max_positions: int | None = None
    vocab_size: int | None = None
    head_dim: int | None = None
    sliding_window: int | None = None


PRESETS: Mapping[str, KnownModel] = MappingProxyType(
    {
        "tiny": KnownModel(max_positions=1024, vocab_size=256, head_dim=16),
        "qwen3-0.6b": KnownModel(max_positions=40_960, vocab_size=151_936, head_dim=128),
        "qwen3-8b": KnownModel(max_positions=40_960, vocab_size=151_936, head_dim=128),
        "llama3-8b": KnownModel(max_positions=8192, vocab_size=128_256, head_dim=128),
    }
)

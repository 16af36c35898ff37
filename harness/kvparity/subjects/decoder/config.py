"""The shape of a decoder, from what a contract states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kvparity.core.errors import UnsupportedError
from kvparity_contracts.decoder import DecoderConfig

Family = Literal["llama", "qwen2", "qwen3"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "qwen3")
LayerType = Literal["full", "sliding"]


@dataclass(frozen=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3.1 (``rope_type: llama3``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class DecoderShape:
    """Shape and switches of one decoder. All sizes in elements.

    ``sliding_window``: keys that a query of a sliding layer sees, its own included (0: no layer
    slides). ``layer_types``: one for each layer; empty: all slide if there is a window.
    ``kv_shared_layers``: so many layers at the end read the cache of another one, with query heads
    of ``shared_head_dim`` (0: ``head_dim``). ``attention_softcap`` c: scores become c tanh(s / c)
    (0: none). ``attention_sinks``: each query head has a learned logit in its denominator.
    """

    family: Family
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_positions: int
    rms_eps: float
    rope_theta: float = 10000.0
    rope_scaling: Llama3Scaling | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    sliding_window: int = 0
    layer_types: tuple[LayerType, ...] = ()
    kv_shared_layers: int = 0
    shared_head_dim: int = 0
    attention_softcap: float = 0.0
    attention_sinks: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that no decoder has."""
        for name in (
            "vocab", "hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate",
            "max_positions",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UnsupportedError(f"decoder: {name} is {getattr(self, name)}, not positive")
        if self.heads % self.kv_heads:
            raise UnsupportedError(
                f"decoder: {self.heads} query heads cannot share {self.kv_heads} KV heads evenly"
            )
        if self.head_dim % 2:
            raise UnsupportedError(f"decoder: RoPE needs an even head_dim, not {self.head_dim}")
        if not 16 <= self.head_dim <= 256:
            raise UnsupportedError(
                f"decoder: head_dim is {self.head_dim}; the attention kernels take 16 to 256"
            )
        self._check_layers()

    def _check_layers(self) -> None:
        for name in ("sliding_window", "kv_shared_layers", "shared_head_dim", "attention_softcap"):
            if not getattr(self, name) >= 0:
                raise UnsupportedError(f"decoder: {name} is {getattr(self, name)}, not 0 or more")
        types = self.types
        if len(types) != self.layers:
            raise UnsupportedError(f"decoder: {len(types)} layer_types for {self.layers} layers")
        if "sliding" in types and not self.sliding_window:
            raise UnsupportedError("decoder: a sliding layer needs a sliding_window")
        if self.sliding_window and "sliding" not in types:
            raise UnsupportedError("decoder: sliding_window is given, but no layer slides")
        writing = self.layers - self.kv_shared_layers
        if writing < 1:
            raise UnsupportedError(
                f"decoder: {self.kv_shared_layers} of {self.layers} layers share the keys and "
                "values of another layer, so none is left to write them"
            )
        orphans = set(types[writing:]) - set(types[:writing])
        if orphans:
            raise UnsupportedError(
                f"decoder: a layer that shares keys and values is {min(orphans)}, but none of the "
                f"first {writing} is"
            )
        if self.shared_head_dim and not self.kv_shared_layers:
            raise UnsupportedError("decoder: shared_head_dim is given, but no layer is shared")
        if self.shared_head_dim % 2 or self.shared_head_dim > self.head_dim:
            raise UnsupportedError(
                f"decoder: shared_head_dim is {self.shared_head_dim}; it must be even and at most "
                f"head_dim ({self.head_dim})"
            )

    @property
    def types(self) -> tuple[LayerType, ...]:
        """The type of each layer."""
        if self.layer_types:
            return self.layer_types
        return ("sliding" if self.sliding_window else "full",) * self.layers

    @property
    def scale(self) -> float:
        """What query-key products are multiplied by."""
        return 1.0 / math.sqrt(self.head_dim)


def from_contract(stated: DecoderConfig) -> DecoderShape:
    """The configuration that a contract states. ``attention_bias`` means all four projections."""
    return DecoderShape(
        family="qwen3" if stated.qk_norm else "llama",
        vocab=stated.vocab_size,
        hidden=stated.hidden_size,
        layers=stated.layers,
        heads=stated.heads,
        kv_heads=stated.kv_heads,
        head_dim=stated.head_dim,
        intermediate=stated.intermediate_size,
        max_positions=stated.max_positions,
        rms_eps=stated.rms_eps,
        rope_theta=stated.rope_theta,
        qk_norm=stated.qk_norm,
        qkv_bias=stated.attention_bias,
        o_bias=stated.attention_bias,
        tied=stated.tie_embeddings,
        sliding_window=stated.sliding_window or 0,
        layer_types=stated.layer_types or (),
        kv_shared_layers=stated.kv_shared_layers,
        shared_head_dim=stated.shared_head_dim or 0,
        attention_softcap=stated.attention_softcap or 0.0,
        attention_sinks=stated.attention_sinks,
    )

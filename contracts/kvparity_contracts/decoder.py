"""The shape of the reference decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from kvparity_contracts.base import Fault, Model, Positive, refuse


class DecoderConfig(Model):
    """A decoder like Llama or Qwen3: RMSNorm, rotary positions, grouped queries, SwiGLU."""

    vocab_size: Positive
    """Token ids are 0 .. vocab_size-1."""
    hidden_size: Positive
    """Width of the residual stream."""
    intermediate_size: Positive
    """Width of the feed-forward layer."""
    layers: Positive
    """Number of layers."""
    heads: Positive
    """Query heads: a multiple of kv_heads."""
    kv_heads: Positive
    """Key and value heads."""
    head_dim: Positive
    """Width of one head: even."""
    rope_theta: Annotated[float, Field(gt=0)] = 10_000.0
    """Base of the rotary frequencies."""
    rms_eps: Annotated[float, Field(gt=0)] = 1e-6
    """Added to the mean square in RMSNorm."""
    tie_embeddings: bool = False
    """Whether the head uses the weights of the embedding."""
    qk_norm: bool = False
    """Whether queries and keys pass an RMSNorm per head (Qwen3)."""
    attention_bias: bool = False
    """Whether the projections of attention have a bias."""
    max_positions: Positive
    """Longest sequence, prompt and continuation together."""

    @model_validator(mode="after")
    def _check(self) -> DecoderConfig:
        refuse(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        if self.heads % self.kv_heads:
            yield Fault(
                ("heads",), f"found {self.heads}", f"a multiple of kv_heads ({self.kv_heads})"
            )
        if self.head_dim % 2:
            yield Fault(("head_dim",), f"found {self.head_dim}", "an even number")

"""The shape of the reference decoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from kvparity_contracts.base import Fault, Model, Positive, Several

LayerType = Literal["full", "sliding"]


class DecoderConfig(Model):
    """A decoder like Llama or Qwen3: RMSNorm, rotary positions, grouped queries, SwiGLU."""

    vocab_size: Positive
    """Token ids are 0 .. vocab_size-1."""
    hidden_size: Positive
    """Width of the residual stream."""
    intermediate_size: Positive
    """Width of the feed-forward layer."""
    layers: Annotated[int, Field(ge=1, le=4096)]
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
    sliding_window: Positive | None = None
    """Keys that a query of a sliding layer sees, its own included; left out, no layer slides."""
    layer_types: Several[LayerType] | None = None
    """full or sliding for each layer; left out, all slide if there is a sliding_window."""
    kv_shared_layers: Annotated[int, Field(ge=0)] = 0
    """So many last layers write no cache: each reads that of the last layer of its type before."""
    shared_head_dim: Positive | None = None
    """Width of the query heads of those layers, filled up with zeros; left out, head_dim."""
    attention_softcap: Annotated[float, Field(gt=0)] | None = None
    """Scores s become c tanh(s / c); left out, they stay."""
    attention_sinks: bool = False
    """Whether each query head has a learned logit that takes a share of its softmax."""

    def own_faults(self) -> Iterator[Fault]:
        """What contradicts itself."""
        if self.heads % self.kv_heads:
            expected = f"a multiple of kv_heads ({self.kv_heads})"
            yield Fault(("heads",), f"found {self.heads}", expected)
        if self.head_dim % 2:
            yield Fault(("head_dim",), f"found {self.head_dim}", "an even number")
        yield from self._typed()
        yield from self._shared()

    @property
    def types(self) -> tuple[LayerType, ...]:
        """The type of each layer."""
        kind: LayerType = "full" if self.sliding_window is None else "sliding"
        return self.layer_types or (kind,) * self.layers

    def _typed(self) -> Iterator[Fault]:
        types = self.types
        if len(types) != self.layers:
            expected = f"one for each of the {self.layers} layers"
            yield Fault(("layer_types",), f"found {len(types)} types", expected)
        if "sliding" in types and self.sliding_window is None:
            at = ("layer_types", types.index("sliding"))
            found = "found a sliding layer, but no sliding_window"
            yield Fault(at, found, "full, or a sliding_window")
        if "sliding" not in types and self.sliding_window is not None:
            found = "found a window, but no layer is sliding"
            yield Fault(("sliding_window",), found, "a sliding layer")

    def _shared(self) -> Iterator[Fault]:
        writing, types = self.layers - self.kv_shared_layers, self.types
        found = f"found {self.kv_shared_layers}"
        if writing < 1:
            expected = f"at most {self.layers - 1}: a layer must be left that writes"
            yield Fault(("kv_shared_layers",), f"{found} of {self.layers} layers", expected)
            return
        if len(types) == self.layers and (orphans := set(types[writing:]) - set(types[:writing])):
            found += f", but none of the first {writing} layers is {min(orphans)}"
            yield Fault(("kv_shared_layers",), found, "a layer of each shared type that writes")
        if self.shared_head_dim is None:
            return
        at, found = ("shared_head_dim",), f"found {self.shared_head_dim}"
        if not self.kv_shared_layers:
            yield Fault(at, f"{found}, but no layer is shared", "kv_shared_layers above 0")
        if self.shared_head_dim % 2 or self.shared_head_dim > self.head_dim:
            yield Fault(at, found, f"an even number of at most head_dim ({self.head_dim})")

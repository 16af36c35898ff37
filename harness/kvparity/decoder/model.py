"""The forward pass on fixed-order kernels.

Every operation gives each row the same bits whatever other rows there are, so a step's layout
cannot change a number, if the attention kernels keep their promise too. Keys and values are
written to the cache before attention, and attention reads the cache alone: prefill and decode see
the same stored numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.decoder.batch import Batch
from kvparity.decoder.cache import KVCache
from kvparity.decoder.config import DecoderConfig
from kvparity.decoder.weights import LayerWeights, Weights
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.embedding import embed
from kvparity_kernels.linear import linear
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rope import rotate
from kvparity_kernels.swiglu import swiglu

Attend = Callable[..., tuple[Tensor, Tensor]]

HEAD_BYTES = 64 << 20  # logits held at once


@dataclass(frozen=True)
class AttentionOps:
    """The two attention kernels, with the signatures of ``kvparity_kernels.attention``."""

    prefill: Attend = attend_prefill
    decode: Attend = attend_decode


@dataclass(frozen=True)
class Ops:
    """What is computed beside attention, with the signatures of ``kvparity_kernels``.

    Prefill and decode call the same ones; a replacement sees only the rows of the step.
    """

    linear: Callable[..., Tensor] = linear
    rms_norm: Callable[..., Tensor] = rms_norm
    rotate: Callable[..., Tensor] = rotate
    swiglu: Callable[..., Tensor] = swiglu
    embed: Callable[..., Tensor] = embed


@dataclass(frozen=True)
class Model:
    """Weights and how they are computed with.

    ``cos``, ``sin``: float32 ``[positions, head_dim / 2]``. ``twin``: use the vectorised CPU twins
    of the kernels beside attention, which have the same bits.
    """

    config: DecoderConfig
    weights: Weights
    cos: Tensor
    sin: Tensor
    attention: AttentionOps
    order: ReductionOrder
    twin: bool
    ops: Ops = Ops()

    def hidden(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run all layers and return the residual stream of the wanted rows ``[w, hidden]``.

        Pad rows are computed like any other, except that they have no keys in the cache and
        attention leaves them NaN.
        """
        cos, sin = self.cos[batch.positions], self.sin[batch.positions]
        x = self.ops.embed(batch.ids, self.weights.embed, twin=self.twin)
        for number, layer in enumerate(self.weights.layers):
            normed = self._norm(x, layer.input_norm)
            q, k, v = self._qkv(normed, layer, cos, sin)
            if batch.tokens is not None:
                k, v = k[batch.tokens], v[batch.tokens]
            cache.store(number, batch.slots, k, v)
            mixed = self._attend(q, batch, cache, number)
            x = x + self._linear(mixed.flatten(1), layer.o, layer.o_bias)
            normed = self._norm(x, layer.post_norm)
            gate, up = self._linear(normed, layer.gate_up, layer.gate_up_bias).chunk(2, dim=1)
            x = x + self._linear(self._gated(gate, up), layer.down, layer.down_bias)
        return x[batch.wanted]

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Final norm and head of ``hidden[w, hidden]``: float32 blocks ``[r, vocab]``.

        Logits are the float32 accumulators, not rounded to the execution dtype, so that no
        difference is rounded away. At most ``HEAD_BYTES`` are held at once.
        """
        block = max(1, HEAD_BYTES // (4 * self.config.vocab))
        for rows in torch.split(hidden, block):
            normed = self._norm(rows, self.weights.final_norm)
            yield self.ops.linear(
                normed,
                self.weights.head,
                None,
                order=self.order,
                out_dtype=torch.float32,
                twin=self.twin,
            )

    def _qkv(
        self, x: Tensor, layer: LayerWeights, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[rows, heads, head_dim]``, normed and rotated."""
        config = self.config
        stacked = self._linear(x, layer.qkv, layer.qkv_bias)
        stacked = stacked.view(x.shape[0], -1, config.head_dim)  # len() is a constant of a trace
        q, k, v = torch.split(stacked, [config.heads, config.kv_heads, config.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        return self._rotate(q, cos, sin), self._rotate(k, cos, sin), v

    def _attend(self, q: Tensor, batch: Batch, cache: KVCache, layer: int) -> Tensor:
        """Spans of several queries in one call, single queries that decode in another."""
        scale, order = self.config.scale, self.order
        out = None
        if batch.prefill is not None:
            chunks = batch.prefill
            out, _ = self.attention.prefill(
                q,
                cache.keys_values(layer, chunks.seen),
                q_starts=chunks.q_starts,
                q_lens=chunks.q_lens,
                max_q=chunks.max_q,
                scale=scale,
                order=order,
            )
        if batch.decode is not None:
            singles = batch.decode
            decoded, _ = self.attention.decode(
                q[singles.rows],
                cache.keys_values(layer, singles.seen),
                max_kv=singles.max_kv,
                scale=scale,
                order=order,
            )
            if out is None:
                out = torch.full_like(q, float("nan"))
            out = out.index_copy(0, singles.rows, decoded)
        assert out is not None  # a batch is never empty
        return out

    def _linear(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return self.ops.linear(x, w, bias, order=self.order, twin=self.twin)

    def _norm(self, x: Tensor, w: Tensor) -> Tensor:
        return self.ops.rms_norm(x, w, self.config.rms_eps, twin=self.twin)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.ops.rotate(x, cos, sin, twin=self.twin)

    def _gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.ops.swiglu(gate, up, twin=self.twin)

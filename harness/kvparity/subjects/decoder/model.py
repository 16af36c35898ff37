"""The forward pass on fixed-order kernels.

Every operation gives each row the same bits whatever other rows there are, so a step's layout
cannot change a number, if the attention kernels keep their promise too. Keys and values are
written to the cache before attention, and attention reads the cache alone: prefill and decode see
the same stored numbers. Where there is no cache, attention reads fresh keys and values that were
rounded as the cache would have rounded them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from kvparity.subjects import events
from kvparity.subjects.attention_calls import (
    AttentionOps,
    DecodeCall,
    Outputs,
    PrefillCall,
    SlotsCall,
)
from kvparity.subjects.decoder import emit_events
from kvparity.subjects.decoder.batch import StepRows
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.call_log import noting
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import Layer, layers_of
from kvparity.subjects.decoder.row_blocks import RowBlocks
from kvparity.subjects.decoder.uncached import UncachedKeys
from kvparity.subjects.decoder.weights import DecoderWeights, LayerWeights
from kvparity_kernels.embedding import embed
from kvparity_kernels.linear import linear
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rope import rotate
from kvparity_kernels.stream import heard
from kvparity_kernels.swiglu import swiglu

HEAD_BYTES = 64 << 20  # logits held at once


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
class DecoderModel:
    """Weights and how they are computed with.

    ``cos``, ``sin``: float32 ``[positions, head_dim / 2]``. ``twin``: use the vectorised CPU twins
    of the kernels beside attention, which have the same bits. ``blocks``: how the depth of
    ``o_proj`` and ``down_proj`` is cut; None: each is one chain.
    """

    config: DecoderShape
    weights: DecoderWeights
    cos: Tensor
    sin: Tensor
    attention: AttentionOps
    order: ReductionOrder
    twin: bool
    ops: Ops = Ops()
    blocks: RowBlocks | None = None

    def hidden(self, batch: StepRows, cache: KVCache | UncachedKeys) -> Tensor:
        """Run all layers and return the residual stream of the wanted rows ``[w, hidden]``.

        Pad rows are computed like any other, except that they have no keys in the cache and
        attention leaves them NaN.
        """
        cos, sin = self.cos[batch.positions], self.sin[batch.positions]
        x = self.ops.embed(batch.ids, self.weights.embed, twin=self.twin)
        emit_events.computed(batch, "embed", x)
        kinds = layers_of(self.config)
        last = max(number for number, kind in enumerate(kinds) if not kind.follower)
        fills = bool(batch.step) and all(span.fill for span in batch.step)
        for number, (kind, layer) in enumerate(zip(kinds, self.weights.layers, strict=True)):

            def told(operation: str, rows: Tensor, number: int = number) -> Tensor:
                emit_events.computed(batch, f"layers.{number} {operation}", rows)
                return rows

            normed = told("input norm", self._norm(x, layer.input_norm))
            q, k, v = self._projected(normed, kind, layer, cos, sin, told)
            if k is not None and v is not None:
                self._write(kind.stored, k, v, batch, cache)
            if fills and number == last:
                break  # no layer writes behind it, and nobody reads its rows
            mixed = told("attention", self._attend(q, batch, cache, number)[..., : kind.head_dim])
            x = x + told("o_proj", self._rows(mixed.flatten(1), layer.o, layer.o_bias))
            normed = told("post-attention norm", self._norm(x, layer.post_norm))
            both = told("gate_up_proj", self._linear(normed, layer.gate_up, layer.gate_up_bias))
            gate, up = both.chunk(2, dim=1)
            gated = told("swiglu", self.ops.swiglu(gate, up, twin=self.twin))
            x = x + told("down_proj", self._rows(gated, layer.down, layer.down_bias))
        return x[batch.wanted]

    def logits(self, hidden: Tensor, batch: StepRows | None = None) -> Iterator[Tensor]:
        """Final norm and head of ``hidden[w, hidden]``: float32 blocks ``[r, vocab]``.

        Logits are the float32 accumulators, not rounded to the execution dtype, so that no
        difference is rounded away. At most ``HEAD_BYTES`` are held at once. ``batch``: whose rows
        they are, for whoever listens.
        """
        block = max(1, HEAD_BYTES // (4 * self.config.vocab))
        start = 0
        for rows in torch.split(hidden, block):
            normed = self._norm(rows, self.weights.final_norm)
            found = self.ops.linear(
                normed,
                self.weights.head,
                None,
                order=self.order,
                out_dtype=torch.float32,
                twin=self.twin,
            )
            if batch is not None:  # of a trace, the number of rows would become a constant
                emit_events.wanted(batch, "final norm", normed, start)
                emit_events.wanted(batch, "logits", found, start)
                start += len(rows)
            yield found

    def _projected(
        self,
        x: Tensor,
        kind: Layer,
        layer: LayerWeights,
        cos: Tensor,
        sin: Tensor,
        told: Callable[[str, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Queries, keys and values ``[rows, heads, head_dim]``, normed and rotated.

        A follower has queries alone, filled up with zeros to the width of its keys before they are
        rotated, so that each column turns with the key's column.
        """
        config = self.config
        stacked = told("qkv_proj", self._linear(x, layer.qkv, layer.qkv_bias))
        stacked = stacked.view(x.shape[0], -1, kind.head_dim)  # len() is a constant of a trace
        if kind.follower:
            q = stacked if layer.q_norm is None else self._norm(stacked, layer.q_norm)
            q = pad(q, (0, config.head_dim - kind.head_dim))
            return told("query", self._rotate(q, cos, sin)), None, None
        q, k, v = torch.split(stacked, [config.heads, config.kv_heads, config.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = told("query norm", self._norm(q, layer.q_norm))
            k = told("key norm", self._norm(k, layer.k_norm))
        q, k = told("query", self._rotate(q, cos, sin)), told("key", self._rotate(k, cos, sin))
        return q, k, told("value", v)

    def _write(
        self, stored: int, k: Tensor, v: Tensor, batch: StepRows, cache: KVCache | UncachedKeys
    ) -> None:
        if batch.tokens is not None:
            k, v = k[batch.tokens], v[batch.tokens]
        listener = events.current()
        if listener is not None:
            emit_events.wrote(listener, batch, stored, k, v)
        cache.store(stored, batch.slots, k, v)

    def _attend(
        self, q: Tensor, batch: StepRows, cache: KVCache | UncachedKeys, number: int
    ) -> Tensor:
        """Spans of several queries in one call, single queries that decode in another."""
        kind, sinks = layers_of(self.config)[number], self.weights.layers[number].sinks
        out = None
        if batch.prefill is not None:
            chunks = batch.prefill
            call = PrefillCall(
                q=q,
                kv=cache.keys_values(kind.stored, chunks.seen),
                q_starts=chunks.q_starts,
                q_lens=chunks.q_lens,
                max_q=chunks.max_q,
                scale=kind.scale,
                order=self.order,
                window=kind.window,
                softcap=self.config.attention_softcap,
                sinks=sinks,
            )
            out = self._called(self.attention.prefill, call, batch, number, chunks.spans)
        if batch.decode is not None:
            singles = batch.decode
            single = DecodeCall(
                q=q[singles.rows],
                kv=cache.keys_values(kind.stored, singles.seen),
                max_kv=singles.max_kv,
                scale=kind.scale,
                order=self.order,
                window=kind.window,
                softcap=self.config.attention_softcap,
                sinks=sinks,
            )
            decoded = self._called(self.attention.decode, single, batch, number, singles.spans)
            if out is None:
                out = torch.full_like(q, float("nan"))
            out = out.index_copy(0, singles.rows, decoded)
        assert out is not None  # a batch is never empty
        return out

    def _called(
        self,
        attend: Callable[[SlotsCall], Outputs],
        call: SlotsCall,
        batch: StepRows,
        number: int,
        spans: Sequence[int],
    ) -> Tensor:
        listener, located = events.current(), bool(batch.names) and heard(events.Computed)
        if listener is None and not located:
            return attend(call)[0]
        with noting() as noted:
            result = attend(call)
        if located:
            emit_events.read(batch, number, spans, call, noted)
        if listener is None:
            return result[0]
        emit_events.attended(listener, batch, number, spans, call, noted, result)
        return result[0]

    def _linear(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return self.ops.linear(x, w, bias, order=self.order, twin=self.twin)

    def _rows(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        if self.blocks is None:
            return self._linear(x, w, bias)
        return self.blocks.linear(self.ops.linear, x, w, bias, order=self.order, twin=self.twin)

    def _norm(self, x: Tensor, w: Tensor) -> Tensor:
        return self.ops.rms_norm(x, w, self.config.rms_eps, twin=self.twin)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.ops.rotate(x, cos, sin, twin=self.twin)

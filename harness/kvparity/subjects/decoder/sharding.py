"""A decoder cut over ranks: each holds some heads and some of the feed-forward width.

Columns (``qkv``, ``gate_up``) are cut by outputs, whose products are whole; rows (``o``, ``down``)
by the depth, whose partial sums are added over ranks. Embedding, norms and the head are whole on
every rank, and so are the biases that come behind a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import Layer, layers_of
from kvparity.subjects.decoder.row_blocks import RowBlocks, Sum
from kvparity.subjects.decoder.storage import Storage
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.decoder.weights import DecoderWeights, LayerWeights
from kvparity_kernels.order import ReductionOrder


@dataclass(frozen=True)
class DecoderShard:
    """What one rank holds, as another process can be sent it. ``own``: its blocks of the depth."""

    config: DecoderShape
    weights: DecoderWeights
    storage: Storage
    order: ReductionOrder
    twin: bool
    seed: int
    source: str
    backends: Backends
    own: int

    def to(self, device: str) -> DecoderShard:
        """The same on a device."""
        old = self.weights

        def layer(own: LayerWeights) -> LayerWeights:
            named = {each.name: getattr(own, each.name) for each in fields(own)}
            moved = {name: t.to(device) for name, t in named.items() if t is not None}
            return replace(own, **moved)

        embed = old.embed.to(device)
        head = embed if old.head is old.embed else old.head.to(device)
        layers, norm = tuple(map(layer, old.layers)), old.final_norm.to(device)
        return replace(self, weights=DecoderWeights(embed, layers, norm, head))

    def open(self, total: Sum) -> DecoderSubject:
        """The rank's decoder, whose partial sums go through ``total``."""
        return DecoderSubject(
            self.config,
            self.weights,
            kv_cache=self.storage.format,
            heads_first=self.storage.heads_first,
            ring=self.storage.ring,
            order=self.order,
            twin=self.twin,
            seed=self.seed,
            source=self.source,
            backends=self.backends,
            blocks=RowBlocks(self.own, total),
        )


def shards(subject: DecoderSubject, size: int) -> list[DecoderShard]:
    """A decoder cut over ``size`` ranks, in ascending order of ranks.

    Raises:
        UnsupportedError: its heads or its width do not go into equal parts.
    """
    model = subject.model
    config, blocks = model.config, 1 if model.blocks is None else model.blocks.own
    for name in ("heads", "kv_heads", "intermediate"):
        if (count := getattr(config, name)) % size:
            raise UnsupportedError(f"{size} ranks cannot hold {name} {count} in equal parts")
    shape = replace(
        config,
        heads=config.heads // size,
        kv_heads=config.kv_heads // size,
        intermediate=config.intermediate // size,
    )
    return [
        DecoderShard(
            config=shape,
            weights=replace(
                model.weights,
                layers=tuple(
                    _layer(config, kind, layer, rank, size)
                    for kind, layer in zip(layers_of(config), model.weights.layers, strict=True)
                ),
            ),
            storage=subject.storage,
            order=model.order,
            twin=model.twin,
            seed=subject.seed,
            source=f"{subject.source}, rank {rank} of {size}",
            backends=subject.backends,
            own=max(1, blocks // size),
        )
        for rank in range(size)
    ]


def _layer(
    config: DecoderShape, kind: Layer, layer: LayerWeights, rank: int, size: int
) -> LayerWeights:
    q, kv = config.heads * kind.head_dim, config.kv_heads * config.head_dim
    stacked = (q,) if kind.follower else (q, kv, kv)
    width = (config.intermediate,) * 2

    def rows(tensor: Tensor | None, parts: Sequence[int]) -> Tensor | None:
        if tensor is None:
            return None
        return torch.cat([each.chunk(size)[rank] for each in torch.split(tensor, list(parts))])

    def heads(tensor: Tensor | None) -> Tensor | None:
        return rows(tensor, [len(tensor)]) if tensor is not None else None

    def matrix(tensor: Tensor, parts: Sequence[int]) -> Tensor:
        found = rows(tensor, parts)
        assert found is not None
        return found

    def depth(tensor: Tensor) -> Tensor:
        return tensor.chunk(size, dim=1)[rank].contiguous()

    return replace(
        layer,
        qkv=matrix(layer.qkv, stacked),
        qkv_bias=rows(layer.qkv_bias, stacked),
        o=depth(layer.o),
        gate_up=matrix(layer.gate_up, width),
        gate_up_bias=rows(layer.gate_up_bias, width),
        down=depth(layer.down),
        sinks=heads(layer.sinks),
        k_scale=heads(layer.k_scale),
        v_scale=heads(layer.v_scale),
    )

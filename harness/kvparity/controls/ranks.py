"""Defects of one rank, or of what ranks do together, for a tp-invariance check to catch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from kvparity.subjects.decoder.rank_sums import all_reduce, fixed, gathered
from kvparity.subjects.decoder.row_blocks import Sum
from kvparity.subjects.decoder.sharding import DecoderShard
from kvparity.subjects.decoder.weights import DecoderWeights, LayerWeights

Shards = Sequence[DecoderShard]


@dataclass(frozen=True)
class RankDefect:
    """``shards``: what ranks are given instead of theirs. ``total``: what adds over ranks instead
    (None: as asked). ``most``: it shows at the most ranks, else at the fewest above one."""

    shards: Callable[[Shards], Shards] = lambda shards: shards
    total: Sum | None = None
    most: bool = False


def ring_sum(parts: Sequence[Tensor]) -> Tensor:
    """Each chunk of columns is added around the ring of ranks, from the next one to its own."""
    ranks = len(parts)
    chunks = [part.chunk(ranks, dim=1) for part in parts]
    sums = []
    for c in range(len(chunks[0])):
        found = chunks[(c + 1) % ranks][c]
        for step in range(2, ranks + 1):
            found = found + chunks[(c + step) % ranks][c]
        sums.append(found)
    return torch.cat(sums, dim=1)


def _ring(partial_sum: Tensor) -> Tensor:
    return ring_sum(gathered(partial_sum))


def _narrow(partial_sum: Tensor) -> Tensor:
    if dist.get_rank() == dist.get_world_size() - 1:
        partial_sum = partial_sum.to(torch.bfloat16).float()
    return fixed(partial_sum)


def _one_chain(shards: Shards) -> Shards:
    return [replace(each, own=1) for each in shards]


def _last(change: Callable[[LayerWeights, LayerWeights], LayerWeights], shards: Shards) -> Shards:
    """The last rank has layers made of its own and of those of the first rank."""
    *others, last = shards
    pairs = zip(shards[0].weights.layers, last.weights.layers, strict=True)
    layers = tuple(change(first, own) for first, own in pairs)
    weights: DecoderWeights = replace(last.weights, layers=layers)
    return [*others, replace(last, weights=weights)]


def _foreign(first: LayerWeights, own: LayerWeights) -> LayerWeights:
    return replace(own, qkv=first.qkv, qkv_bias=first.qkv_bias)


def _stale(first: LayerWeights, own: LayerWeights) -> LayerWeights:
    return replace(own, down=own.down * 1.01)


DEFECTS: Mapping[str, RankDefect] = {
    "rank-sums-in-ring": RankDefect(total=_ring, most=True),
    "rank-depth-in-one-chain": RankDefect(shards=_one_chain),
    "rank-sums-in-bfloat16": RankDefect(total=_narrow),
    "rank-with-another-shard": RankDefect(shards=partial(_last, _foreign)),
    "rank-with-stale-weights": RankDefect(shards=partial(_last, _stale)),
    "unasked-all-reduce": RankDefect(total=all_reduce),
}
"""By the name of the control."""

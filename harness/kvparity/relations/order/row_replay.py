"""Attention of one row on real data, added as the trees of one side say, node by node.

Trees say in which order numbers are added, edges where the running maximum is renewed. What they do
not say is tried: where the scale goes, which exp, what is rounded or fused. A replay that gives all
bits of the row is one explanation of them; none is claimed without.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kvparity.relations.order.rescale import Edges
from kvparity.relations.order.tree import SumTree
from kvparity_kernels.fixed_arithmetic import fma


@dataclass(frozen=True)
class RowData:
    """What a row was given: ``q`` ``[H, D]``, ``k``, ``v`` ``[keys, Hkv, D]`` of any float format;
    ``sinks`` float32 ``[H]`` or None. ``dtype``: of the result."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    sinks: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """Of the result."""
        return self.q.dtype


@dataclass(frozen=True)
class RowOrder:
    """How one side adds: Q K over dimensions, P V and the weights over keys (and a sink), and where
    its running maximum is renewed."""

    products: SumTree
    keys: SumTree
    weights: SumTree
    edges: Edges

    def blocks(self) -> list[list[range]]:
        """By split its tiles, in the order in which they are walked."""
        n = self.keys.n
        up, down = set(self.edges.up), set(self.edges.down)
        both = [0, *sorted(up & down), n]
        splits = []
        for start, stop in itertools.pairwise(both):
            inner = sorted(x for x in (up ^ down) if start < x < stop)
            tiles = [range(a, b) for a, b in itertools.pairwise([start, *inner, stop])]
            falling = any(x in down for x in inner)
            splits.append(tiles[::-1] if falling else tiles)
        return splits


@dataclass(frozen=True)
class Rounding:
    """What trees do not say. ``exp``: which one; ``scaled``: the query is, instead of the score;
    ``fused``: sums are renewed and merged by fused multiply-adds; ``narrow``: weights are rounded
    to the format of v before they meet it; ``contracted``: products of Q K are
    fused with their sums; ``reciprocal``: the result is multiplied by 1 / l."""

    exp: str
    scaled: bool
    fused: bool
    narrow: bool
    contracted: bool
    reciprocal: bool

    @property
    def unit(self) -> float:
        """What scores are multiplied by for its exp."""
        return math.log2(math.e) if "exp2" in self.exp else 1.0


def _wide(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: of(x.double()).float()


_EXPS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp2": lambda x: torch.from_numpy(np.exp2(x.numpy())),
    "torch.exp2": torch.exp2,
    "torch.exp": torch.exp,
    "exp2 in float64": _wide(torch.exp2),
    "exp in float64": _wide(torch.exp),
}


_WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.softmax": lambda x: torch.softmax(x, 1),
    "torch.softmax over columns": lambda x: torch.softmax(x.T.contiguous(), 0).T,
    "torch.softmax over columns from the end": (
        lambda x: torch.softmax(x.flip(1).T.contiguous(), 0).T.flip(1)
    ),
}
"""Weights of ``[H, keys]`` that are divided before they meet v, all at once: no sum of theirs is
seen."""


def roundings(dtype: torch.dtype) -> Iterator[Rounding]:
    """All that are tried for results of a format, the most frequent first."""
    narrow = (False,) if dtype == torch.float32 else (True, False)
    for contracted, reciprocal, low, scaled, fused, exp in itertools.product(
        (False, True), (False, True), narrow, (False, True), (True, False), _EXPS
    ):
        yield Rounding(exp, scaled, fused, low, contracted, reciprocal)
    for contracted, low, scaled, exp in itertools.product(
        (False, True), narrow, (False, True), _WHOLE
    ):
        yield Rounding(exp, scaled, False, low, contracted, False)


@dataclass(frozen=True)
class ReplayedRow:
    """What a replay gave: ``scores`` ``[H, keys]``; ``top`` ``[H]``: the maximum that weights are
    relative to; ``weight`` ``[H]`` and ``values`` ``[H, Dv]``: their sum, and that of P V;
    ``out`` ``[H, Dv]``. Of weights that are divided at once ``weight`` ``[H, keys]`` are these."""

    scores: Tensor
    top: Tensor
    weight: Tensor
    values: Tensor
    out: Tensor


def replay_row(data: RowData, order: RowOrder, how: Rounding) -> ReplayedRow:
    """Attention of the row, every node rounded to float32."""
    group = data.q.shape[0] // data.k.shape[1]
    q = data.q.float()
    k, v = (x.float().repeat_interleave(group, 1) for x in (data.k, data.v))
    scale = torch.tensor(data.scale * how.unit, dtype=torch.float32)
    scores = _scores(q * scale if how.scaled else q, k, order.products, fused=how.contracted)
    scores = scores if how.scaled else scores * scale
    if how.exp in _WHOLE:
        return _divided_first(scores, v, data, order, how)
    tops = _tops(scores, order.blocks())
    exp = _EXPS[how.exp]
    weights = exp(scores - tops)
    sums = _NodeSums(exp, fused=how.fused)
    pieces = [(weights[:, j], tops[:, j]) for j in range(scores.shape[1])]
    if data.sinks is not None:
        pieces.append((torch.ones_like(tops[:, 0]), data.sinks.float() * how.unit))
    split = _split_of(order)
    total, top = sums.add(pieces, order.weights, split, fused_inside=True)
    rounded = weights.to(data.v.dtype).float() if how.narrow else weights
    terms = [(rounded[:, j, None] * v[j], tops[:, j, None]) for j in range(v.shape[0])]
    values, own = sums.add(terms, order.keys, split, fused_inside=False)
    values = values * exp(own - top[:, None])
    out = values * (1.0 / total)[:, None] if how.reciprocal else values / total[:, None]
    return ReplayedRow(scores, top, total, values, (out + 0.0).to(data.dtype))


def _divided_first(
    scores: Tensor, v: Tensor, data: RowData, order: RowOrder, how: Rounding
) -> ReplayedRow:
    weights = _WHOLE[how.exp](scores)
    rounded = weights.to(data.v.dtype).float() if how.narrow else weights
    values = order.keys.replay(rounded.T[:, :, None] * v)
    return ReplayedRow(scores, scores.amax(1), weights, values, (values + 0.0).to(data.dtype))


def _scores(q: Tensor, k: Tensor, tree: SumTree, *, fused: bool) -> Tensor:
    """Q K ``[H, keys]`` of k ``[keys, H, D]``."""
    if not fused:
        return tree.replay((q[None] * k).permute(2, 1, 0))
    left, right = q[None].expand(k.shape).permute(2, 1, 0), k.permute(2, 1, 0)
    return contracted(left, right, tree)


def contracted(left: Tensor, right: Tensor, tree: SumTree) -> Tensor:
    """The sum of products of terms ``[n, ...]``; those that meet a sum are fused with it."""
    values: dict[int, Tensor] = {}
    for x, (a, b) in enumerate(tree.nodes, tree.n):
        if a < tree.n and b < tree.n:
            first = left[a] * right[a]
            values[x] = _fma(left[b], right[b], first)
        elif a < tree.n or b < tree.n:
            leaf, node = (a, b) if a < tree.n else (b, a)
            values[x] = _fma(left[leaf], right[leaf], values.pop(node))
        else:
            values[x] = values.pop(a) + values.pop(b)
    (total,) = values.values()
    return total


def _fma(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(fma(x.numpy(), y.numpy(), z.numpy())))


def _tops(scores: Tensor, blocks: Sequence[Sequence[range]]) -> Tensor:
    """``[H, keys]``: the running maximum that each key's weight is relative to."""
    found = torch.empty_like(scores)
    for tiles in blocks:
        top = torch.full_like(scores[:, 0], -math.inf)
        for tile in tiles:
            top = torch.maximum(top, scores[:, tile.start : tile.stop].amax(1))
            found[:, tile.start : tile.stop] = top[:, None]
    return found


def _split_of(order: RowOrder) -> list[int]:
    """The split of each key; a sink is one of its own."""
    found = [0] * order.weights.n
    for number, tiles in enumerate(order.blocks()):
        for tile in tiles:
            found[tile.start : tile.stop] = [number] * len(tile)
    for extra in range(order.keys.n, order.weights.n):
        found[extra] = -1
    return found


@dataclass(frozen=True)
class _NodeSums:
    exp: Callable[[Tensor], Tensor]
    fused: bool

    def add(
        self,
        terms: Sequence[tuple[Tensor, Tensor]],
        tree: SumTree,
        split: Sequence[int],
        *,
        fused_inside: bool,
    ) -> tuple[Tensor, Tensor]:
        """The sum of terms, each beside its maximum; both are brought to the greater maximum."""
        values = {x: (*term, split[x]) for x, term in enumerate(terms)}
        for x, (a, b) in enumerate(tree.nodes, tree.n):
            (one, top_a, in_a), (two, top_b, in_b) = values.pop(a), values.pop(b)
            top = torch.maximum(top_a, top_b)
            keep, new = self.exp(top_a - top), self.exp(top_b - top)
            if self.fused and (fused_inside or in_a != in_b):
                total = _fma(one, keep.expand_as(one), two * new)
            else:
                total = one * keep + two * new
            values[x] = total, top, (in_a if in_a == in_b else -2 - x)
        ((total, top, _),) = values.values()
        return total, top

"""The trees that a ``ReductionOrder`` declares, for kernels that run in the interpreter.

There ``tl.dot`` adds key after key into its accumulator and ``tl.sum`` halves
(``kvparity_kernels.fixed_arithmetic``). On a GPU the matrix instruction decides what happens inside
a tile; only the chain of tiles and the merge of splits is declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvparity.relations.order.tree import SumTree
from kvparity_kernels.order import ReductionOrder


class _Grower:
    """Collects nodes; ``None`` is a sum of nothing."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.nodes: list[tuple[int, ...]] = []

    def add(self, a: int | None, b: int | None) -> int | None:
        if a is None or b is None:
            return b if a is None else a
        self.nodes.append((a, b))
        return self.n + len(self.nodes) - 1

    def fuse(self, total: int | None, terms: Iterable[int]) -> int | None:
        """All at once, as a tensor core adds a group of products and its accumulator."""
        children = (*(() if total is None else (total,)), *terms)
        if len(children) < 2:
            return children[0] if children else None
        self.nodes.append(children)
        return self.n + len(self.nodes) - 1

    def done(self) -> SumTree:
        return SumTree.build(self.n, self.nodes)


def chain(n: int) -> SumTree:
    """Term after term into one accumulator: what linear layers and scores declare over K."""
    tree = _Grower(n)
    total: int | None = None
    for x in range(n):
        total = tree.add(total, x)
    return tree.done()


def key_order(order: ReductionOrder, n: int, first: int = 0) -> SumTree:
    """How the P V of the keys ``first .. n-1`` are added, which are the terms 0 and up.

    A chain within each split, split sums merged ascending. Splits and tiles are cut at absolute
    multiples, so a window's first key may lie inside of one.
    """
    tree = _Grower(n - first)
    total: int | None = None
    for split in range(first - first % order.split, n, order.split):
        part: int | None = None
        for x in range(max(split, first), min(split + order.split, n)):
            part = tree.add(part, x - first)
        total = tree.add(total, part)
    return tree.done()


def fused_chain(n: int, groups: Sequence[int]) -> SumTree:
    """Groups of terms into one accumulator; terms past the last are zeros, which change nothing."""
    tree, total, start = _Grower(n), None, 0
    for size in groups:
        total = tree.fuse(total, range(start, min(start + size, n)))
        start += size
    return tree.done()


def fused_key_order(
    order: ReductionOrder, n: int, groups: Sequence[int], first: int = 0
) -> SumTree:
    """How the P V of the keys ``first .. n-1`` are added by tensor cores.

    ``groups``: how many keys each fused addition of a tile takes. Keys that are not seen weigh
    zero, which changes nothing.
    """
    tree = _Grower(n - first)
    total: int | None = None
    for split in range(first - first % order.split, n, order.split):
        part: int | None = None
        for tile in range(split, split + order.split, order.tile):
            start = tile
            for size in groups:
                seen = range(max(start, first), min(start + size, n))
                part = tree.fuse(part, (x - first for x in seen))
                start += size
        total = tree.add(total, part)
    return tree.done()


def denominator_order(
    order: ReductionOrder, n: int, first: int = 0, *, sink: bool = False
) -> SumTree:
    """How the weights are added: halving within a tile, tiles chained, splits merged ascending.

    ``sink``: one more term, the last, which is merged after all splits.
    """
    tree = _Grower(n - first + sink)
    total: int | None = None
    for split in range(first - first % order.split, n, order.split):
        part: int | None = None
        for start in range(split, split + order.split, order.tile):
            lanes: list[int | None] = [
                x - first if first <= x < n else None for x in range(start, start + order.tile)
            ]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [tree.add(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
            part = tree.add(part, lanes[0])
        total = tree.add(total, part)
    if sink:
        tree.add(total, n - first)
    return tree.done()


def rescale_edges(
    order: ReductionOrder, n: int, first: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the running maximum is renewed: every tile ascending, every split descending.

    Counted from the first key that is seen. A first tile and a last split of one such key are left
    out: its weight is 1 before it is scaled, which shows nothing.
    """

    def multiples(step: int) -> range:
        return range(first + step - first % step, n, step)

    return (
        tuple(x - first for x in multiples(order.tile) if x > first + 1),
        tuple(x - first for x in multiples(order.split) if x < n - 1),
    )

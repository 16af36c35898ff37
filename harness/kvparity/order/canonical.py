"""The trees that a ``ReductionOrder`` declares, for kernels that run in the interpreter.

There ``tl.dot`` adds key after key into its accumulator and ``tl.sum`` halves
(``kvparity_kernels.fixed``). On a GPU what happens inside a tile is the matrix instruction's own;
only the chain of tiles and the merge of splits is declared.
"""

from __future__ import annotations

from kvparity.order.tree import SumTree
from kvparity_kernels.order import ReductionOrder


class _Grower:
    """Collects nodes; ``None`` is a sum of nothing."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.nodes: list[tuple[int, int]] = []

    def add(self, a: int | None, b: int | None) -> int | None:
        if a is None or b is None:
            return b if a is None else a
        self.nodes.append((a, b))
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


def key_order(order: ReductionOrder, n: int) -> SumTree:
    """How ``n`` keys' P V are added: a chain within each split, split sums merged ascending."""
    tree = _Grower(n)
    total: int | None = None
    for first in range(0, n, order.split):
        part: int | None = None
        for x in range(first, min(first + order.split, n)):
            part = tree.add(part, x)
        total = tree.add(total, part)
    return tree.done()


def denominator_order(order: ReductionOrder, n: int) -> SumTree:
    """How the weights are added: halving within a tile, tiles chained, splits merged ascending."""
    tree = _Grower(n)
    total: int | None = None
    for split in range(0, n, order.split):
        part: int | None = None
        for first in range(split, split + order.split, order.tile):
            lanes: list[int | None] = [
                x if x < n else None for x in range(first, first + order.tile)
            ]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [tree.add(a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
            part = tree.add(part, lanes[0])
        total = tree.add(total, part)
    return tree.done()


def rescale_edges(order: ReductionOrder, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where the running maximum is renewed: every tile ascending, every split descending.

    A last split of one key is left out: its weight is 1 before it is scaled, which shows nothing.
    """
    return tuple(range(order.tile, n, order.tile)), tuple(range(order.split, n - 1, order.split))

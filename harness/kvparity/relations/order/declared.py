"""What a subject's ``ReductionOrder`` declares of the order at one number of keys.

In the interpreter the declared trees are exact, so certifying them is cheaper than recovering any.
On a GPU a matrix instruction decides inside a tile; what remains declared there is that splits are
cut at absolute multiples, that their tiles are walked one after the other, that split sums are
merged ascending, and a sink after all of them: a set of partial sums that every tree must have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvparity.relations.order import canonical
from kvparity.relations.order.difference import partial_sums, shorten, sum_keys
from kvparity.relations.order.rescale import Edges
from kvparity.relations.order.sides import Side
from kvparity.relations.order.tree import SumTree
from kvparity_kernels.order import ReductionOrder


@dataclass(frozen=True)
class Declared:
    """The declared order over the keys ``first .. total-1``, then a sink if there is one."""

    order: ReductionOrder
    total: int
    first: int
    sink: bool
    dim: int

    @staticmethod
    def of(side: Side) -> Declared | None:
        """What the side's subject declares; None if it declares no order."""
        subject = side.subject
        if subject.order is None:
            return None
        return Declared(subject.order, side.total, side.first, subject.sinks, subject.heads.dim)

    def tree(self, part: str) -> SumTree:
        """The tree of a part as the interpreter adds it."""
        if part == "products":
            return canonical.chain(self.dim)
        if part == "key order":
            return canonical.key_order(self.order, self.total, self.first)
        return canonical.denominator_order(self.order, self.total, self.first, sink=self.sink)

    @property
    def edges(self) -> Edges:
        """Where the running maximum is renewed."""
        return Edges(*canonical.rescale_edges(self.order, self.total, self.first))

    def missing(self, part: str, tree: SumTree) -> str:
        """The first declared partial sum that a tree does not form, in words; else ``""``."""
        if part == "products":  # how the head dimension is walked is the matrix instruction's own
            return ""
        keys, formed = sum_keys(tree.n), partial_sums(tree)
        for stretch in self._sums():
            terms = range(stretch.start - self.first, stretch.stop - self.first)
            if len(terms) > 1 and sum(keys[x] for x in terms) % 2**128 not in formed:
                cut = f"split {self.order.split}, tile {self.order.tile}"
                return (
                    f"no partial sum of the keys {shorten(list(stretch))} is formed, which the "
                    f"declared order has ({cut}{', then the sink' if self.sink else ''})"
                )
        return ""

    def _sums(self) -> Iterator[range]:
        """The keys of every split as far as each of its tiles, and of all splits up to each."""
        split, tile = self.order.split, self.order.tile
        for start in range(self.first - self.first % split, self.total, split):
            for tiles in range(tile, split + tile, tile):
                yield range(max(start, self.first), min(start + tiles, self.total))
            yield range(self.first, min(start + split, self.total))

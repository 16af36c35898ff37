"""How one side adds a row: as its kernel was launched, or as probes recover it."""

from __future__ import annotations

from kvparity.relations.order import canonical
from kvparity.relations.order.errors import NotATree, NotMeasured, ProbeLied
from kvparity.relations.order.keys import KeyOrder, Mode
from kvparity.relations.order.parts import DENOMINATOR, PRODUCTS
from kvparity.relations.order.recover import recover
from kvparity.relations.order.rescale import Edges, RescaleEdges, recover_edges
from kvparity.relations.order.row_replay import RowOrder
from kvparity.relations.order.sides import Side
from kvparity.relations.order.tree import SumTree
from kvparity_kernels.order import ReductionOrder


def declared_row(order: ReductionOrder, total: int, first: int, dim: int, sink: bool) -> RowOrder:
    """As this project's kernels add in the interpreter, over the keys ``first .. total-1``."""
    return RowOrder(
        canonical.chain(dim),
        canonical.key_order(order, total, first),
        canonical.denominator_order(order, total, first, sink=sink),
        Edges(*canonical.rescale_edges(order, total, first)),
    )


def probed_row(side: Side) -> RowOrder:
    """As probes recover it. A part that the results hide is taken from the order of the keys.

    Raises:
        NotATree, ProbeLied, NotMeasured: no order of keys or products can be read.
    """
    keys = _keys(side)
    products, _ = PRODUCTS.recover(side)
    try:
        weights, _ = DENOMINATOR.recover(side)
    except NotMeasured:
        weights = keys
    try:
        edges, _ = recover_edges(RescaleEdges(side))
    except NotMeasured:
        edges = Edges((), ())
    return RowOrder(products, keys, weights, edges)


def _keys(side: Side) -> SumTree:
    modes: tuple[Mode, ...] = ("uniform", "alone")
    for mode in modes:
        try:
            return recover(KeyOrder(side, mode))[0]
        except (ProbeLied, NotATree):
            if mode == modes[-1]:
                raise
    raise AssertionError("unreachable: the last mode raises")

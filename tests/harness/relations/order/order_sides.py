"""Sides that answer as is written here: kernels and probes are taken away.

A side has a tree for plain probes and one for probes that are moved to other places; both are the
same where no fault is planted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from order_trees import TreeOracle

from kvparity.relations.order import ProbeLied, SumTree, certify, recover
from kvparity.relations.order.canonical import chain, key_order
from kvparity.relations.order.parts import Method
from kvparity.relations.order.rescale import Edges
from kvparity_kernels.order import ReductionOrder

N = 36
ORDER = ReductionOrder(split=16, tile=16)
DECLARED = key_order(ORDER, N)
CHAIN = chain(N)
EDGES = Edges((16, 32), (16, 32))


def within(n: int = N) -> SumTree:
    """The declared order, but the first split is walked from its end."""
    first = [[15, 14], *([n + t, 13 - t] for t in range(14))]
    order = DECLARED.nodes[15:]
    return SumTree.build(n, [*first, *order])


@dataclass
class Fake:
    """One side: its trees by place (0: plain, 1: moved), edges, and what was asked of it."""

    which: str
    tree: SumTree = DECLARED
    moved: SumTree | None = None
    edges: Edges = EDGES
    order: ReductionOrder | None = None
    lies: tuple[str, ...] = ()  # modes in which no whole numbers come
    by_mode: dict[str, SumTree] = field(default_factory=dict)
    changes: SumTree | None = None  # what is answered once certificates were asked
    name: str = ""  # of the format
    first: int = 0
    asked: list[Any] = field(default_factory=list)

    @property
    def subject(self) -> Any:
        heads = SimpleNamespace(dim=16)
        return SimpleNamespace(order=self.order, sinks=False, heads=heads)

    @property
    def format(self) -> Any:
        return SimpleNamespace(name=self.name)

    @property
    def total(self) -> int:
        return N

    def oracle(self, turn: int, mode: str = "") -> TreeOracle:
        if mode in self.lies:
            raise ProbeLied(f"{self.which} lies")
        moved = self.moved if turn and self.moved else self.tree
        return TreeOracle(self.by_mode.get(mode, moved))


def method() -> Method:
    def find(side):
        side.asked.append("recover")
        return recover(TreeOracle(side.changes or side.tree))

    def check(side, tree, turn):
        side.asked.append(turn)
        return certify(side.oracle(turn), tree)

    def note(side, tree):
        side.asked.append("again")

    return Method("key order", find, check, note)


def sides(decode: dict[str, Any], prefill: dict[str, Any], order=None) -> tuple[Any, Any]:
    return Fake("decode", order=order, **decode), Fake("prefill", order=order, **prefill)

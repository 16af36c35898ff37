"""Summation trees: in which order ``n`` numbers are added.

A tree over the terms ``0 .. n-1`` is a list of nodes; a node is a tuple of children, where a number
below ``n`` is a term and ``n + t`` is node ``t``. Two children are one rounded addition, more are
one fused addition (a tensor core's). Addition commutes, so children have no order of their own and
stand by their least term. Nothing here recurses: a loop over 4096 keys is a tree 4096 deep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Adder = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class SumTree:
    """A tree in canonical form: post-order, children by least term, the root last.

    Two trees are equal exactly if they add in the same order. Make one with :meth:`build`.
    """

    n: int
    nodes: tuple[tuple[int, ...], ...]

    @staticmethod
    def build(n: int, nodes: Sequence[Sequence[int]]) -> SumTree:
        """Put nodes given in any order into canonical form; ids are as in the module's docstring.

        Raises:
            ValueError: the nodes are not one tree over the terms ``0 .. n-1``.
        """
        root = _root(n, nodes)
        before = _preorder(n, nodes, root)
        if len(before) < n + len(nodes):
            raise ValueError(
                f"the root reaches {len(before)} of {n + len(nodes)} ids; expected all"
            )
        least = list(range(n + len(nodes)))
        for x in reversed(before):
            if x >= n:
                least[x] = min(least[c] for c in nodes[x - n])
        number: dict[int, int] = {}
        ordered: list[tuple[int, ...]] = []
        stack = [(root, False)]
        while stack:
            x, ready = stack.pop()
            if x < n:
                number[x] = x
                continue
            children = sorted(nodes[x - n], key=least.__getitem__)
            if ready:
                number[x] = n + len(ordered)
                ordered.append(tuple(number[c] for c in children))
            else:
                stack.append((x, True))
                stack.extend((c, False) for c in reversed(children))
        return SumTree(n, tuple(ordered))

    @property
    def text(self) -> str:
        """All of the tree: ``n;c,c;c,c,c;...``, one node after the other."""
        return ";".join([str(self.n), *(",".join(map(str, node)) for node in self.nodes)])

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the text."""
        return hashlib.sha256(b"sumtree/1\0" + self.text.encode()).hexdigest()[:16]

    @property
    def fan_out(self) -> int:
        """The most children that a node has; above 2, additions are fused."""
        return max(map(len, self.nodes), default=0)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many terms each id covers."""
        sizes = [1] * self.n
        for node in self.nodes:
            sizes.append(sum(sizes[c] for c in node))
        return tuple(sizes)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The least and the greatest term of each id."""
        spans = [(x, x) for x in range(self.n)]
        for node in self.nodes:
            spans.append((min(spans[c][0] for c in node), max(spans[c][1] for c in node)))
        return tuple(spans)

    @property
    def depth(self) -> int:
        """The most additions that a term goes through."""
        depths = [0] * self.n
        for node in self.nodes:
            depths.append(1 + max(depths[c] for c in node))
        return depths[-1] if self.nodes else 0

    def terms(self, x: int) -> list[int]:
        """The terms under an id, ascending."""
        return sorted(y for y in _preorder(self.n, self.nodes, x) if y < self.n)

    def certificate(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of terms, and the size of the smallest partial sum that holds both.

        Of each node all pairs of its children, each child standing for its least term: ``n - 1``
        pairs for a tree of plain additions. Together they fix the tree (docs/order.md has the
        argument).
        """
        pairs: list[tuple[int, int]] = []
        want: list[int] = []
        for t, node in enumerate(self.nodes):
            least = [self.spans[c][0] for c in node]
            for a in range(len(node)):
                for b in range(a + 1, len(node)):
                    pairs.append((least[a], least[b]))
                    want.append(self.sizes[self.n + t])
        return np.array(pairs, np.int64).reshape(len(want), 2), np.array(want, np.int64)

    def replay(self, terms: Tensor, adder: Adder | None = None) -> Tensor:
        """Add ``terms[n, ...]`` along dimension 0 in this order, rounding to their dtype each time.

        ``adder`` adds the children of a fused node; how many bits a tensor core keeps is a property
        of the device, so there is no default.

        Raises:
            ValueError: the number of terms differs, or a node is fused and there is no adder.
        """
        if terms.shape[0] != self.n:
            raise ValueError(f"{terms.shape[0]} terms for a tree of {self.n}")
        values = dict(enumerate(terms.unbind(0)))
        for x, node in enumerate(self.nodes, self.n):
            parts = [values.pop(c) for c in node]
            if len(node) == 2:
                values[x] = parts[0] + parts[1]
            elif adder is not None:
                values[x] = adder(parts)
            else:
                raise ValueError(f"a node adds {len(node)} terms at once; give an adder for it")
        (total,) = values.values()
        return total


def _root(n: int, nodes: Sequence[Sequence[int]]) -> int:
    """The one id that is nobody's child."""
    children = [c for node in nodes for c in node]
    counted = set(children)
    if len(counted) != len(children) or any(len(node) < 2 for node in nodes):
        raise ValueError("an id is the child of two nodes, or a node has fewer than two children")
    every = set(range(n + len(nodes)))
    roots = every - counted
    if len(roots) != 1 or counted - every:
        raise ValueError(f"{len(roots)} roots over {n} terms; expected one that reaches all")
    return roots.pop()


def _preorder(n: int, nodes: Sequence[Sequence[int]], root: int) -> list[int]:
    found, stack = [], [root]
    while stack:
        x = stack.pop()
        found.append(x)
        if x >= n:
            stack.extend(nodes[x - n])
    return found

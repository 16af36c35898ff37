"""Trees to test with, and oracles that answer from a known tree."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np

from kvparity.relations.order.tree import SumTree


def sizes(tree: SumTree) -> np.ndarray:
    """[n, n]: the size of the smallest partial sum with both terms."""
    table = np.ones((tree.n, tree.n), np.int64)
    for t in range(len(tree.nodes) - 1, -1, -1):
        terms = np.array(tree.terms(tree.n + t))
        table[np.ix_(terms, terms)] = len(terms)
    np.fill_diagonal(table, 1)
    return table


class TreeOracle:
    """Answers pairs from a tree."""

    def __init__(self, tree: SumTree) -> None:
        self.n, self.launches, self.table = tree.n, 0, sizes(tree)

    def __call__(self, pairs):
        self.launches += 1
        return self.table[pairs[:, 0], pairs[:, 1]]


class TreeTriples(TreeOracle):
    """Answers triples from a tree."""

    def __call__(self, triples):
        self.launches += 1
        i, j, k = triples.T
        return self.table[i, j] < self.table[i, k]


def random_tree(n: int, seed: int, most: int = 2) -> SumTree:
    """Joins random parts, up to ``most`` at once, until one is left."""
    draw = random.Random(seed)
    parts, nodes = list(range(n)), []
    while len(parts) > 1:
        chosen = draw.sample(parts, min(len(parts), draw.randint(2, most)))
        parts = [x for x in parts if x not in chosen] + [n + len(nodes)]
        nodes.append(chosen)
    return SumTree.build(n, nodes)


def _splits(terms: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to cut a set into two or more parts."""
    first, rest = terms[0], terms[1:]
    for size in range(len(rest)):
        for mates in itertools.combinations(rest, size):
            part = (first, *mates)
            left = tuple(x for x in rest if x not in mates)
            yield (part, left)
            yield from ((part, *more) for more in _splits(left) if len(left) > 1)


def _nested(terms: tuple[int, ...]) -> list:
    if len(terms) == 1:
        return [terms[0]]
    return [
        tree
        for parts in _splits(terms)
        for tree in itertools.product(*(_nested(part) for part in parts))
    ]


def nestings(n: int) -> list:
    """Every sum of ``n`` terms as nested tuples."""
    return _nested(tuple(range(n)))


def all_trees(n: int) -> list[SumTree]:
    """Every tree on ``n`` terms, fused nodes included."""
    found = []
    for nested in nestings(n):
        nodes: list[list[int]] = []

        def walk(tree, nodes=nodes):
            if isinstance(tree, int):
                return tree
            children = [walk(child) for child in tree]
            nodes.append(children)
            return n + len(nodes) - 1

        walk(nested)
        found.append(SumTree.build(n, nodes))
    return found

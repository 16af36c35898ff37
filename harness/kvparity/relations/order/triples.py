"""Recover and certify a tree of positive terms, from questions about three terms at a time.

The question ``(i, j, k)``: are i and j added together before either meets k? Only trees of plain
additions can be found so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvparity.relations.order.certify import Certificate
from kvparity.relations.order.errors import NotATree
from kvparity.relations.order.recover import Answering
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.tree import SumTree

Triples = NDArray[np.int64]
TripleOracle: TypeAlias = Answering[np.bool_]
"""Tells for ``[P, 3]`` whether the first two meet before either meets the third."""


@dataclass(frozen=True)
class Subtree:
    """A term, or a subtree that is found in another task: any of its terms and its slot."""

    term: int
    slot: int


@dataclass(frozen=True)
class TripleTask:
    """Items that make one subtree, whose id goes into ``slot``."""

    items: list[Subtree]
    slot: int


def recover_triples(ask: TripleOracle, *, seed: int = 0) -> tuple[SumTree, Stats]:
    """The binary tree behind a triple oracle; always certify it afterwards.

    Two random items split the others into those on the side of the one, of the other, and those
    that both meet later: expected ``O(n log n)`` triples, all open splits in one round.

    Raises:
        NotATree: no tree fits the answers.
    """
    begun, before, n = time.perf_counter(), ask.launches, ask.n
    rng = np.random.default_rng(seed)
    joins: dict[int, tuple[int, ...]] = {}  # slot -> slots below it; slots < n are the terms
    slots = n + 1
    tasks = [TripleTask([Subtree(x, x) for x in range(n)], n)]
    probes = rounds = 0
    while tasks:
        plans = []
        questions: list[tuple[int, int, int]] = []
        for task in tasks:
            if len(task.items) == 1:
                joins[task.slot] = (task.items[0].slot,)
                continue
            a, b = (task.items[x] for x in rng.choice(len(task.items), 2, replace=False))
            rest = [item for item in task.items if item not in (a, b)]
            for item in rest:
                questions += [(a.term, item.term, b.term), (b.term, item.term, a.term)]
            plans.append((task, a, b, rest))
        met: dict[tuple[int, int, int], bool] = {}
        if questions:
            met = dict(zip(questions, ask(np.array(questions)).tolist(), strict=True))
            probes, rounds = probes + len(questions), rounds + 1
        tasks = []
        for task, a, b, rest in plans:
            with_a = [x for x in rest if met[a.term, x.term, b.term]]
            with_b = [x for x in rest if met[b.term, x.term, a.term]]
            if both := [x.term for x in with_a if x in with_b]:
                raise NotATree(
                    f"term {both[0]} meets {a.term} before {b.term} and also {b.term} before "
                    f"{a.term}"
                )
            later = [x for x in rest if x not in with_a and x not in with_b]
            joined = slots if later else task.slot
            joins[joined] = (slots + 1, slots + 2)
            tasks.append(TripleTask([a, *with_a], slots + 1))
            tasks.append(TripleTask([b, *with_b], slots + 2))
            if later:
                tasks.append(TripleTask([*later, Subtree(a.term, joined)], task.slot))
            slots += 3
    seconds = time.perf_counter() - begun
    return _tree(n, joins), Stats(probes, ask.launches - before, rounds, seconds)


def _tree(n: int, joins: dict[int, tuple[int, ...]]) -> SumTree:
    """Slots with one slot below are that slot; the others are nodes."""

    def end(slot: int) -> int:
        while len(below := joins.get(slot, ())) == 1:
            (slot,) = below
        return slot

    real = [slot for slot, below in joins.items() if len(below) == 2]
    number = {slot: n + t for t, slot in enumerate(real)}
    nodes = [[number.get(end(c), end(c)) for c in joins[slot]] for slot in real]
    return SumTree.build(n, nodes)


def certificate(tree: SumTree) -> Triples:
    """Triples that must all be true: for each node below another, that it is whole before."""
    triples = []
    for node in tree.nodes:
        for child, sibling in ((node[0], node[1]), (node[1], node[0])):
            if child >= tree.n:
                a, b = tree.nodes[child - tree.n]
                triples.append((tree.spans[a][0], tree.spans[b][0], tree.spans[sibling][0]))
    return np.array(triples, np.int64).reshape(len(triples), 3)


def certify_triples(ask: TripleOracle, tree: SumTree) -> Certificate:
    """Ask the ``n - 2`` triples that define a binary tree, in one round.

    Raises:
        ValueError: the tree has a fused node, or another number of terms.
    """
    if tree.fan_out > 2 or ask.n != tree.n:
        raise ValueError(f"triples certify plain additions of {ask.n} terms, not this tree")
    begun, before = time.perf_counter(), ask.launches
    triples = certificate(tree)
    if len(triples) == 0:
        return Certificate(True, "", Stats())
    right = ask(triples)
    stats = Stats(len(triples), ask.launches - before, 1, time.perf_counter() - begun)
    if right.all():
        return Certificate(True, "", stats)
    i, j, k = triples[np.flatnonzero(~right)[0]]
    seen = (
        f"terms {i} and {j} are not added before {k} joins them "
        f"({int((~right).sum())} of {len(triples)} triples differ)"
    )
    return Certificate(False, seen, stats)

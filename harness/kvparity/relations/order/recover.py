"""Recover a summation tree from an oracle that tells the size of partial sums.

The oracle is asked for pairs of terms and answers, for each, how many terms the smallest partial
sum holds that contains both. The idea of reading that off masked sums is FPRev's (Xie et al., 2024,
"Revealing floating-point accumulation orders"); what differs here is that all open questions of a
round are asked at once, so a launch of the function answers hundreds, and that the term which
splits a set is drawn at random, which bounds the work on every shape of tree.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from kvparity.relations.order.errors import NotATree
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.tree import SumTree

Answer_co = TypeVar("Answer_co", np.int64, np.bool_, covariant=True)
Pairs = NDArray[np.int64]
ALL_PAIRS = 16  # sets up to this size are settled by asking all their pairs


class Answering(Protocol[Answer_co]):
    """Answers questions about terms; one call is one round."""

    @property
    def n(self) -> int:
        """Terms of the sum."""

    @property
    def launches(self) -> int:
        """Calls of the function so far."""

    def __call__(self, asked: NDArray[np.int64], /) -> NDArray[Answer_co]:
        """Answers ``[P]`` for questions ``[P, terms]``."""


Oracle: TypeAlias = Answering[np.int64]
"""Tells for pairs ``[P, 2]`` the sizes of their partial sums."""


@dataclass(frozen=True)
class Task:
    """Terms whose subtrees hang, with others, below a node of so many terms (None: the root)."""

    terms: Pairs
    parent: int | None = None
    bound: int | None = None


@dataclass
class Growth:
    """The tree so far: nodes as lists of children, ids as in ``SumTree.build``."""

    n: int
    nodes: list[list[int]] = field(default_factory=list)

    def new(self, children: list[int]) -> int:
        """Add a node; its id."""
        self.nodes.append(children)
        return self.n + len(self.nodes) - 1

    def hang(self, parent: int | None, tops: list[int]) -> None:
        """Put finished subtrees below a node, if there is one."""
        if parent is not None:
            self.nodes[parent - self.n].extend(tops)


def recover(oracle: Oracle, *, seed: int = 0) -> tuple[SumTree, Stats]:
    """The tree behind an oracle; always certify it afterwards.

    Expected ``O(n log n)`` probes and ``O(log n)`` rounds for any tree.

    Raises:
        NotATree: no tree fits the answers.
    """
    begun, before = time.perf_counter(), oracle.launches
    rng = np.random.default_rng(seed)
    growth = Growth(oracle.n)
    probes = rounds = 0
    tasks = [Task(np.arange(oracle.n))] if oracle.n > 1 else []
    while tasks:
        asked = [_questions(task.terms, rng) for task in tasks]
        together = np.concatenate(asked)
        sizes = np.asarray(oracle(together), dtype=np.int64)
        probes, rounds = probes + len(together), rounds + 1
        parts = np.split(sizes, np.cumsum([len(pairs) for pairs in asked])[:-1])
        todo: list[Task] = []
        for task, pairs, answers in zip(tasks, asked, parts, strict=True):
            settle = _settle if len(task.terms) <= ALL_PAIRS else _split
            todo += settle(growth, task, pairs, answers)
        tasks = []
        for task in todo:
            if len(task.terms) == 1:
                growth.hang(task.parent, [int(task.terms[0])])
            else:
                tasks.append(task)
    tree = SumTree.build(oracle.n, growth.nodes)
    seconds = time.perf_counter() - begun
    return tree, Stats(probes, oracle.launches - before, rounds, seconds)


def _questions(terms: Pairs, rng: np.random.Generator) -> Pairs:
    if len(terms) <= ALL_PAIRS:
        a, b = np.triu_indices(len(terms), 1)
        return np.stack([terms[a], terms[b]], 1)
    one = terms[rng.integers(len(terms))]
    rest = terms[terms != one]
    return np.stack([np.full_like(rest, one), rest], 1)


def _split(growth: Growth, task: Task, pairs: Pairs, sizes: NDArray[np.int64]) -> list[Task]:
    """The path from one term upwards; what meets it at one size is left to a task of its own."""
    top, below = int(pairs[0, 0]), 1
    todo: list[Task] = []
    for size in map(int, np.unique(sizes)):
        met = pairs[sizes == size, 1]
        if size == task.bound:  # other children of the fused node above
            todo.append(Task(met, task.parent, size))
            continue
        if below + len(met) != size:
            raise NotATree(
                f"term {pairs[0, 0]} shares a partial sum of {size} terms, but only "
                f"{below + len(met)} terms meet it there"
            )
        top, below = growth.new([top]), size
        todo.append(Task(met, top, size))
    growth.hang(task.parent, [top])
    return todo


def _settle(growth: Growth, task: Task, pairs: Pairs, sizes: NDArray[np.int64]) -> list[Task]:
    """All pairs are known: join by ascending size; what meets at the bound stays apart."""
    top = {int(x): int(x) for x in task.terms}
    members = {int(x): [int(x)] for x in task.terms}
    for size in map(int, np.unique(sizes)):
        meets: defaultdict[int, set[int]] = defaultdict(set)
        for i, j in pairs[sizes == size]:
            a, b = top[int(i)], top[int(j)]
            if a == b:
                raise NotATree(f"terms {i} and {j} meet twice, the second time at {size} terms")
            meets[a].add(b)
            meets[b].add(a)
        if size == task.bound:
            continue
        done: set[int] = set()
        for x in list(meets):
            if x in done:
                continue
            together = {x} | meets[x]
            inside = [term for y in sorted(together) for term in members[y]]
            if any({y} | meets[y] != together for y in together) or len(inside) != size:
                raise NotATree(f"the partial sum of {size} terms around {sorted(inside)} is none")
            done |= together
            node = growth.new(sorted(together))
            members[node] = inside
            top.update(dict.fromkeys(inside, node))
    growth.hang(task.parent, sorted(set(top.values())))
    return []

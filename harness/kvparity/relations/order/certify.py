"""Certify that a black box adds in the order of a given tree: one round, n - 1 probes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from kvparity.relations.order.recover import Oracle
from kvparity.relations.order.stats import Stats
from kvparity.relations.order.tree import SumTree


@dataclass(frozen=True)
class Certificate:
    """Whether every answer was the tree's; ``seen`` says the first that was not."""

    holds: bool
    seen: str
    stats: Stats


def certify(oracle: Oracle, tree: SumTree) -> Certificate:
    """Ask the tree's certificate of the oracle.

    If all sizes are as the tree has them, the oracle's tree is this one: a fixed summation tree
    whose sizes agree on these pairs has every partial sum of ``tree``, and a tree has no room for
    more. Says nothing about an oracle behind which there is no fixed tree.
    """
    if oracle.n != tree.n:
        raise ValueError(f"a tree of {tree.n} terms cannot certify a sum of {oracle.n}")
    begun, before = time.perf_counter(), oracle.launches
    pairs, want = tree.certificate()
    if len(pairs) == 0:
        return Certificate(True, "", Stats())
    got = oracle(pairs)
    stats = Stats(len(pairs), oracle.launches - before, 1, time.perf_counter() - begun)
    wrong = np.flatnonzero(got != want)
    if len(wrong) == 0:
        return Certificate(True, "", stats)
    i, j = pairs[wrong[0]]
    seen = (
        f"terms {i} and {j} meet in a partial sum of {got[wrong[0]]} terms, not {want[wrong[0]]} "
        f"({len(wrong)} of {len(pairs)} pairs differ)"
    )
    return Certificate(False, seen, stats)

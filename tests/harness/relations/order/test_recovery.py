"""Recovery against every table of answers that a small oracle can give, and what it counts."""

from __future__ import annotations

import itertools
import random
import sys

import numpy as np
import pytest
from order_nested import drawn, given_anyhow
from order_trees import TreeOracle, TreeTriples, all_trees, sizes

from kvparity.relations.order import NotATree, SumTree, certify, recover
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.triples import certify_triples, recover_triples

MODULE = sys.modules["kvparity.relations.order.recover"]


class Table(TreeOracle):
    """Answers from a table of sizes, of a tree or not; remembers what it was asked."""

    def __init__(self, table) -> None:
        self.n, self.table, self.launches = len(table), table, 0
        self.asked = np.zeros((0, 2), np.int64)

    def __call__(self, pairs):
        self.asked = np.concatenate([self.asked, pairs])
        return super().__call__(pairs)

    def like(self, tables):
        """Which of the tables ``[T, n, n]`` have all the answers that were given."""
        i, j = self.asked.T
        return (tables[:, i, j] == self.table[i, j]).all(1)


def symmetric(n: int, answers):
    table = np.ones((n, n), np.int64)
    table[np.triu_indices(n, 1)] = answers
    return np.maximum(table, table.T)


def tables(n: int, draw: random.Random):
    """Of four terms all tables of sizes from 2 to 4, and random trees' with one or two answers
    changed, also to what is no size."""
    if n == 4:
        yield from (symmetric(4, answers) for answers in itertools.product((2, 3, 4), repeat=6))
    for _ in range(150):
        table = sizes(given_anyhow(drawn(n, draw, 4), draw))[np.triu_indices(n, 1)]
        for _ in range(draw.randint(0, 2)):
            table[draw.randrange(len(table))] = draw.randint(1, n + 1)
        yield symmetric(n, table)


@pytest.mark.parametrize("most", [16, 3, 1], ids=["all-pairs", "both", "splits"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 11])
def test_a_tree_is_found_where_one_fits_all_answers_and_else_none(n, most, monkeypatch):
    monkeypatch.setattr(MODULE, "ALL_PAIRS", most)
    draw = random.Random(n)
    every = np.stack([sizes(tree) for tree in all_trees(n)]) if n < 6 else np.zeros((0, n, n))
    for table in tables(n, draw):
        oracle = Table(table)
        try:
            found, _ = recover(oracle, seed=draw.randrange(9))
        except NotATree:
            assert not oracle.like(every).any()
        else:
            assert oracle.like(sizes(found)[None]).all()
            assert len(oracle.asked) == n * (n - 1) // 2 or most < n


@pytest.mark.parametrize("n", [1, 2, 3, 15, 16, 17, 18, 33, 40])
def test_recovery_counts_what_it_asks_and_asks_no_pair_twice(n):
    draw = random.Random(n)
    for most in (2, 3, 6):
        tree = given_anyhow(drawn(n, draw, most), draw)
        oracle = Table(sizes(tree))
        oracle.launches = 7  # of another measurement
        found, stats = recover(oracle, seed=most)
        assert found == tree
        assert (stats.probes, stats.launches) == (len(oracle.asked), oracle.launches - 7)
        assert stats.rounds == stats.launches
        assert 0 <= stats.seconds < 60
        if n <= MODULE.ALL_PAIRS:
            assert (stats.probes, stats.rounds) == (n * (n - 1) // 2, n > 1)
        assert len({*map(tuple, np.sort(oracle.asked, 1))}) == len(oracle.asked)
        before = len(oracle.asked), oracle.launches
        certificate = certify(oracle, tree)
        assert certificate.holds
        asked = len(oracle.asked) - before[0], oracle.launches - before[1]
        assert (certificate.stats.probes, certificate.stats.launches) == asked


# triples


def triples_of(tree: SumTree):
    """[n, n, n]: whether the first two meet before either meets the third."""
    table = sizes(tree)
    return table[:, :, None] < table[:, None, :]


class Answers(Table):
    """Answers triples from a table of booleans, which need be no tree's."""

    def __init__(self, table) -> None:
        super().__init__(table)
        self.asked = np.zeros((0, 3), np.int64)

    def __call__(self, triples):
        self.launches += 1
        self.asked = np.concatenate([self.asked, triples])
        return self.table[tuple(triples.T)]

    def like(self, tables):
        """Which of the tables ``[T, n, n, n]`` have all the answers that were given."""
        i, j, k = self.asked.T
        return (tables[:, i, j, k] == self.table[i, j, k]).all(1)


def triple_tables(n: int, draw: random.Random):
    """Random binary trees' with up to three answers changed."""
    for _ in range(150):
        table = triples_of(given_anyhow(drawn(n, draw), draw))
        for _ in range(draw.randint(0, 3)):
            i, j, k = draw.sample(range(n), 3)
            table[i, j, k] = table[j, i, k] = not table[i, j, k]
        yield table


@pytest.mark.parametrize("n", [3, 4, 5, 11])
def test_a_binary_tree_is_found_where_one_fits_all_answers_and_else_none(n):
    draw, every = random.Random(n), np.zeros((0, n, n, n), bool)
    if n < 6:
        every = np.stack([triples_of(tree) for tree in all_trees(n) if tree.fan_out == 2])
    for table in triple_tables(n, draw):
        oracle = Answers(table)
        try:
            found, _ = recover_triples(oracle, seed=draw.randrange(9))
        except NotATree:
            assert not oracle.like(every).any()
        else:
            assert oracle.like(triples_of(found)[None]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
def test_triples_count_what_they_ask_and_ask_each_once(n):
    draw = random.Random(n)
    tree = given_anyhow(drawn(n, draw), draw)
    oracle = Answers(triples_of(tree))
    oracle.launches = 7  # of another measurement
    found, stats = recover_triples(oracle, seed=n)
    assert found == tree
    assert (stats.probes, stats.launches) == (len(oracle.asked), oracle.launches - 7)
    assert stats.rounds == stats.launches
    assert 0 <= stats.seconds < 60
    assert len({(*sorted((i, j)), k) for i, j, k in oracle.asked}) == len(oracle.asked)
    before = oracle.launches
    certificate = certify_triples(oracle, tree)
    assert certificate.holds
    cost = certificate.stats
    assert (cost.probes, cost.launches, cost.rounds) == (max(n - 2, 0), *2 * [int(n > 2)])
    assert cost.launches == oracle.launches - before
    assert 0 <= cost.seconds < 60


@pytest.mark.parametrize(
    ("terms", "tree"),
    [
        (4, SumTree.build(4, [[0, 1, 2, 3]])),
        (4, chain(5)),
        (5, chain(4)),
        (4, SumTree.build(4, [[0, 1], [4, 2, 3]])),
    ],
    ids=["fused", "more-terms", "fewer-terms", "fused-at-the-root"],
)
def test_triples_certify_no_tree_that_they_do_not_define(terms, tree):
    with pytest.raises(ValueError, match="triples certify plain additions"):
        certify_triples(TreeTriples(chain(terms)), tree)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_trees import TreeOracle, TreeTriples, all_trees, random_tree, sizes

from kvparity.relations.order import NotATree, SumTree, certify, recover
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.triples import certificate, certify_triples, recover_triples

trees = st.builds(random_tree, st.integers(1, 90), st.integers(0, 10**6), st.integers(2, 6))
binary = st.builds(random_tree, st.integers(2, 90), st.integers(0, 10**6))


@settings(max_examples=40)
@given(trees, st.integers(0, 3))
def test_any_tree_is_recovered(tree, seed):
    found, _ = recover(TreeOracle(tree), seed=seed)
    assert found == tree
    assert certify(TreeOracle(tree), tree).holds


@settings(max_examples=40)
@given(binary, st.integers(0, 3))
def test_any_binary_tree_is_recovered_from_triples(tree, seed):
    found, _ = recover_triples(TreeTriples(tree), seed=seed)
    assert found == tree
    assert certify_triples(TreeTriples(tree), tree).holds


def test_a_certificate_holds_for_one_tree_only():
    """Every pair of all 236 trees on five terms, fused ones included."""
    every = all_trees(5)
    assert len(set(every)) == 236
    tables = np.stack([sizes(tree) for tree in every])
    for tree in every:
        pairs, want = tree.certificate()
        agree = (tables[:, pairs[:, 0], pairs[:, 1]] == want).all(1)
        assert [every[k] for k in np.flatnonzero(agree)] == [tree]


def test_triples_certify_one_binary_tree_only():
    every = [tree for tree in all_trees(5) if tree.fan_out == 2]
    assert len(every) == 105
    for tree in every:
        assert len(certificate(tree)) == 3
        holds = [other for other in every if certify_triples(TreeTriples(other), tree).holds]
        assert holds == [tree]


class LongChain:
    """2048 terms, one after the other."""

    n, launches = 2048, 0

    def __call__(self, pairs):
        return pairs.max(1) + 1


def test_a_chain_takes_few_rounds_and_a_certificate_one():
    tree = chain(2048)
    found, stats = recover(LongChain())
    assert found == tree
    assert stats.rounds <= 40
    assert stats.probes <= 2048 * 40  # all pairs would be 2 million
    certificate = certify(LongChain(), tree)
    assert (certificate.stats.rounds, certificate.stats.probes) == (1, 2047)


def test_a_wrong_tree_is_not_certified_and_the_pair_is_named():
    certificate = certify(
        TreeOracle(chain(6)), SumTree.build(6, [[0, 1], [2, 3], [6, 7], [8, 4], [9, 5]])
    )
    assert not certificate.holds
    assert certificate.seen.startswith("terms 2 and 3 meet in a partial sum of 4 terms, not 2")


class Spoilt(TreeOracle):
    """One answer is wrong."""

    def __call__(self, pairs):
        answers = super().__call__(pairs).copy()
        answers[len(answers) // 2] += 1
        return answers


class Mixed(TreeOracle):
    """Odd probes see another tree."""

    def __init__(self, tree, other):
        super().__init__(tree)
        self.other = TreeOracle(other)

    def __call__(self, pairs):
        answers = super().__call__(pairs).copy()
        answers[1::2] = self.other(pairs)[1::2]
        return answers


@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize("spoil", [Spoilt, lambda tree: Mixed(tree, chain(tree.n))])
def test_answers_of_no_tree_are_refused(spoil, n):
    with pytest.raises(NotATree):
        recover(spoil(random_tree(n, 3)))


def test_triples_of_no_tree_are_refused():
    def always(triples):
        return np.ones(len(triples), bool)

    oracle = TreeTriples(chain(8))
    oracle.__class__ = type("Always", (TreeTriples,), {"__call__": lambda self, t: always(t)})
    with pytest.raises(NotATree, match="also"):
        recover_triples(oracle)


def test_certificates_refuse_what_they_cannot_certify():
    with pytest.raises(ValueError, match="cannot certify"):
        certify(TreeOracle(chain(5)), chain(6))

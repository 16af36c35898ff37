from __future__ import annotations

import numpy as np
import pytest
import torch
from order_trees import random_tree

from kvparity.core.bits import differing
from kvparity.relations.order import SumTree, describe, first_difference
from kvparity.relations.order.canonical import chain

DEEP = 4096


def reverse_chain(n: int) -> SumTree:
    return SumTree.build(n, [[n - 1, n - 2]] + [[n + t, n - 3 - t] for t in range(n - 2)])


def test_the_way_nodes_are_given_does_not_matter():
    a = SumTree.build(4, [[0, 1], [2, 3], [4, 5]])
    b = SumTree.build(4, [[5, 6], [3, 2], [1, 0]])
    assert a == b
    assert a.text == "4;0,1;2,3;4,5"
    assert a.fingerprint == b.fingerprint
    assert a.fingerprint != SumTree.build(4, [[0, 1], [4, 2], [5, 3]]).fingerprint


@pytest.mark.parametrize(
    "nodes",
    [[[0, 1]], [[0, 1], [3, 0, 2]], [[0, 1, 2], [0, 1]], [[0], [1, 2], [3, 4]], [[0, 9], [1, 2]]],
)
def test_what_is_no_tree_is_refused(nodes):
    with pytest.raises(ValueError, match=r"roots|child"):
        SumTree.build(3, nodes)


def test_a_deep_chain_needs_no_recursion():
    up, down = chain(DEEP), reverse_chain(DEEP)
    assert up.depth == down.depth == DEEP - 1
    assert describe(up) == "(.*4096)"
    assert describe(down) == "{.*4096}"
    assert "partial sum of 2 terms 0..1" in first_difference(up, down)
    terms = torch.from_numpy(np.random.default_rng(0).normal(size=(DEEP, 3)).astype(np.float32))
    total = terms[0]
    for row in terms[1:]:
        total = total + row
    assert not differing(up.replay(terms), total).any()
    assert differing(down.replay(terms), total).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_replay_rounds_to_the_dtype_each_time(dtype):
    tree = SumTree.build(3, [[1, 2], [0, 3]])
    one, small = 1.0, float(torch.finfo(dtype).eps) / 2
    terms = torch.tensor([one, small, small], dtype=torch.float64).to(dtype)
    assert float(tree.replay(terms)) == one + 2 * small
    assert float(chain(3).replay(terms)) == one  # each half ulp is lost


def test_a_fused_node_needs_an_adder():
    tree = SumTree.build(4, [[0, 1, 2], [4, 3]])
    assert tree.fan_out == 3
    with pytest.raises(ValueError, match="adder"):
        tree.replay(torch.ones(4))
    added = tree.replay(torch.arange(4.0), adder=lambda parts: sum(parts[1:], parts[0]))
    assert float(added) == 6.0


def test_replay_refuses_another_number_of_terms():
    with pytest.raises(ValueError, match="5 terms for a tree of 4"):
        chain(4).replay(torch.ones(5))


@pytest.mark.parametrize(
    ("nodes", "n", "text"),
    [
        ([[0, 1], [2, 3], [4, 5]], 4, "((.*2)*2)"),
        ([[0, 2], [1, 3], [4, 5]], 4, "((.*2)*2) strided"),
        ([[0, 1, 2, 3], [5, 4]], 5, "([.*4] .)"),
        ([], 1, "."),
    ],
)
def test_descriptions(nodes, n, text):
    assert describe(SumTree.build(n, nodes)) == text


def test_a_long_description_is_cut_and_says_how_much():
    line = describe(random_tree(300, 1), limit=80)
    assert "terms…" in line


def test_the_difference_is_the_smallest_partial_sum():
    a = SumTree.build(5, [[0, 1], [5, 2], [6, 3], [7, 4]])
    b = SumTree.build(5, [[0, 1], [5, 2], [3, 4], [6, 7]])
    said = first_difference(a, b, names=("decode", "prefill"))
    assert said.startswith("only prefill forms the partial sum of 2 terms 3..4")
    assert first_difference(a, a) == ""

"""What is said of two trees, and of a tree and a declared order, against sets of terms."""

from __future__ import annotations

import itertools

import pytest
from order_trees import all_trees, random_tree

from kvparity.relations.order import SumTree
from kvparity.relations.order.canonical import chain, denominator_order, key_order, rescale_edges
from kvparity.relations.order.declared import Declared
from kvparity.relations.order.difference import first_difference, partial_sums, shorten
from kvparity_kernels.order import ReductionOrder

# two trees


def subsets(tree: SumTree) -> set[frozenset[int]]:
    """The terms of every partial sum, by walking up from the terms."""
    under = [frozenset([x]) for x in range(tree.n)]
    for node in tree.nodes:
        under.append(frozenset().union(*(under[child] for child in node)))
    return set(under[tree.n :])


def words(sums: set[frozenset[int]]) -> tuple[int, int, int]:
    return min((len(each), min(each), max(each)) for each in sums)


def test_the_smallest_partial_sum_that_one_tree_forms_alone_is_told():
    """All pairs of the trees on four terms, fused ones too, and some of larger ones."""
    trees = all_trees(4) + [random_tree(4, seed, 3) for seed in range(3)]
    more = [random_tree(12, seed, 2 + seed % 3) for seed in range(8)]
    for a, b in [*itertools.product(trees, trees), *itertools.product(more, more)]:
        mine, theirs = subsets(a), subsets(b)
        said = first_difference(a, b, names=("A", "B"))
        assert len(partial_sums(a)) == len(mine)
        if mine == theirs:
            assert said == ""
            continue
        here, there = mine - theirs, theirs - mine
        one = [("A", each) for each in here] + [("B", each) for each in there]
        least = words(here | there)
        name = min((*words({each}), name) for name, each in one)[-1]
        assert said.startswith(f"only {name} forms the partial sum of {least[0]} terms ")
        sums = "partial sum is" if len(here) == 1 else "partial sums are"
        assert said.endswith(f" ({len(here)} {sums} A's alone, {len(there)} B's)")
        same = [x for n, x in one if (n, words({x})) == (name, least)]
        assert any(f" terms {shorten(sorted(x))} (" in said for x in same)


def test_other_numbers_of_terms_are_told_as_such():
    assert first_difference(chain(4), chain(5), names=("A", "B")) == "A adds 4 terms, B 5"
    assert first_difference(chain(5), chain(4)) == "one adds 5 terms, other 4"


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([3, 4], "3..4"),
        ([3, 5], "3, 5"),
        ([0, 1, 2, 3, 7], "0..3, 7"),
        ([0, 2, 4, 6], "0, 2, 4, 6"),
        ([0, 2, 4, 6, 8], "0, 2, 4, 6, …"),
        ([0, 1, 3, 4, 6, 7, 9, 10], "0..1, 3..4, 6..7, 9..10"),
        ([0, 1, 3, 4, 6, 7, 9, 10, 12, 14], "0..1, 3..4, 6..7, 9..10, …"),
    ],
)
def test_terms_are_told_as_at_most_four_runs(terms, text):
    assert shorten(terms) == text


# what is declared


def stretches(split: int, tile: int, total: int, first: int) -> list[range]:
    """By key: a split as far as each of its tiles, and everything up to the end of each split."""
    found = []
    for key in range(first, total):
        begin = max(first, key - key % split)
        if (key + 1) % tile == 0 or key + 1 == total:
            found.append(range(begin, key + 1))
        if (key + 1) % split == 0 or key + 1 == total:
            found.append(range(first, key + 1))
    return found


@pytest.mark.parametrize(
    ("total", "first"), [(80, 0), (68, 0), (96, 0), (96, 13), (84, 37), (35, 33), (34, 31)]
)
@pytest.mark.parametrize("sink", [False, True])
def test_a_tree_is_declared_if_it_forms_every_declared_partial_sum(total, first, sink):
    """Trees that lack one of them, whichever, and trees that are free to do as they like within."""
    split, tile = 32, 16
    declared = Declared(ReductionOrder(split=split, tile=tile), total, first, sink, 16)
    n = total - first + sink
    for part in ("key order", "denominator"):
        for seed in range(4):
            tree = random_tree(n, seed) if n > 1 else SumTree(1, ())
            check(declared, part, tree, stretches(split, tile, total, first))
        for other in ((32, 16), (16, 16), (64, 16), (32, 32), (128, 16)):
            order = ReductionOrder(split=other[0], tile=other[1])
            tree = denominator_order(order, total, first, sink=sink)
            check(declared, part, tree, stretches(split, tile, total, first))
            if not sink:
                tree = key_order(order, total, first)
                check(declared, part, tree, stretches(split, tile, total, first))
        assert declared.missing("products", chain(n)) == ""


def check(declared: Declared, part: str, tree: SumTree, wanted: list[range]) -> None:
    formed = subsets(tree)
    lacking = [
        each
        for each in wanted
        if len(each) > 1 and frozenset(x - declared.first for x in each) not in formed
    ]
    said = declared.missing(part, tree)
    assert bool(said) == bool(lacking)
    if lacking:
        assert any(f"of the keys {shorten(list(each))} is formed" in said for each in lacking)
        assert said.endswith(
            f"(split 32, tile 16{', then the sink' if declared.sink else ''})"
        )  # fmt: skip


def test_each_part_has_the_tree_that_is_declared_for_it():
    order = ReductionOrder(split=32, tile=16)
    for first, sink in ((0, False), (3, True)):
        declared = Declared(order, 69, first, sink, 16)
        assert declared.tree("products") == chain(16)
        assert declared.tree("key order") == key_order(order, 69, first)
        assert declared.tree("denominator") == denominator_order(order, 69, first, sink=sink)
        edges = declared.edges
        assert (edges.up, edges.down) == rescale_edges(order, 69, first)

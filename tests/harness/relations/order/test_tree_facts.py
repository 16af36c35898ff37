"""Trees, their certificates and their descriptions against sums written as nested tuples."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from order_nested import (
    added,
    depth,
    drawn,
    given_anyhow,
    leaves,
    read,
    shape,
    sums,
)
from order_trees import nestings

from kvparity.core.bits import differing
from kvparity.relations.order import Part, SumTree, describe
from kvparity.relations.order.shape import fold

DRAW = random.Random(0)
SMALL = [nested for n in (1, 2, 3, 4, 5) for nested in nestings(n)]
LARGE = [drawn(n, DRAW, most) for n in (6, 9, 17, 40) for most in (2, 3, 5) for _ in range(4)]
SUMS = SMALL + LARGE


def by_id(nested) -> list:
    """Terms, then sums in the order of a canonical tree: what each id stands for."""
    return [*range(len(leaves(nested))), *sums(nested)]


def test_a_tree_says_of_itself_what_the_nested_sum_is():
    for nested in SUMS:
        tree, parts = given_anyhow(nested, DRAW), by_id(nested)
        sets = [frozenset(leaves(part)) for part in parts]
        assert [frozenset(tree.terms(x)) for x in range(len(parts))] == sets
        assert all(tree.terms(x) == sorted(sets[x]) for x in range(len(parts)))
        assert tree.sizes == tuple(map(len, sets))
        assert tree.spans == tuple((min(each), max(each)) for each in sets)
        assert tree.depth == depth(nested)
        assert tree.fan_out == max((len(each) for each in sums(nested)), default=0)
        of = {each: x for x, each in enumerate(sets)}
        children = [
            tuple(
                sorted((of[frozenset(leaves(part))] for part in each), key=lambda x: min(sets[x]))
            )
            for each in sums(nested)
        ]
        assert tree.nodes == tuple(children)
        assert tree.text == ";".join(
            [str(tree.n), *(",".join(str(x) for x in node) for node in children)]
        )


def test_a_fingerprint_is_16_digits_and_each_order_has_its_own():
    found = {given_anyhow(nested, DRAW).fingerprint for nested in SMALL}
    assert len(found) == len(SMALL)
    assert {len(each) for each in found} == {16}
    assert set("".join(found)) == set("0123456789abcdef")


def test_a_certificate_has_all_pairs_of_the_children_of_every_node():
    for nested in SUMS:
        pairs, want = given_anyhow(nested, DRAW).certificate()
        expected = {
            (*sorted((min(leaves(a)), min(leaves(b)))), len(leaves(each)))
            for each in sums(nested)
            for a, b in itertools.combinations(each, 2)
        }
        assert pairs.dtype == want.dtype == np.int64
        assert pairs.shape == (len(want), 2)
        assert len(want) == len(expected)
        assert set(zip(*pairs.T.tolist(), want.tolist(), strict=True)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_replay_adds_as_the_nested_sum_does(dtype):
    for nested in SUMS:
        if all(len(each) == 2 for each in sums(nested)):
            tree = given_anyhow(nested, DRAW)
            terms = torch.randn(tree.n, 8, generator=torch.Generator().manual_seed(tree.n)).to(
                dtype
            )
            assert not differing(tree.replay(terms), added(nested, terms)).any()


def test_children_that_are_added_at_once_reach_the_adder_together():
    tree = given_anyhow(((0, 3), 1, (2, 4, 5)), DRAW)
    seen = []

    def adder(parts):
        seen.append([float(part) for part in parts])
        return sum(parts)

    assert float(tree.replay(2.0 ** torch.arange(6), adder)) == 63.0
    assert seen == [[4.0, 16.0, 32.0], [9.0, 2.0, 52.0]]


NO_TREES = {
    "no-node": (2, []),
    "no-term": (0, []),
    "a-term-left-out": (3, [[0, 1]]),
    "two-roots": (4, [[0, 1], [2, 3]]),
    "one-child": (2, [[0], [2, 1]]),
    "one-child-of-one-term": (1, [[0]]),
    "no-child": (2, [[0, 1], []]),
    "a-term-twice": (3, [[0, 1], [3, 2, 0]]),
    "a-term-twice-in-a-node": (2, [[0, 1, 1]]),
    "a-node-twice": (4, [[0, 1], [4, 2], [4, 5, 3]]),
    "an-id-too-large": (2, [[0, 1, 7]]),
    "an-id-below-0": (2, [[0, 1, -1]]),
    "a-ring-beside-the-tree": (4, [[5, 0], [4, 1], [2, 3]]),
    "its-own-child": (3, [[3, 0], [1, 2]]),
}


@pytest.mark.parametrize("fault", NO_TREES)
def test_nodes_that_are_no_tree_are_refused(fault):
    with pytest.raises(ValueError, match=r"roots|child|reach"):
        SumTree.build(*NO_TREES[fault])


# descriptions


def test_a_description_can_be_read_back():
    for nested in SUMS:
        said = describe(given_anyhow(nested, DRAW), limit=10**6)
        whole = all(max(leaves(x)) - min(leaves(x)) < len(leaves(x)) for x in by_id(nested))
        assert said.endswith(" strided") == (not whole)
        assert shape(read(said)) == shape(nested), said


SHORTEST = [
    ".",
    "(.*2)",
    "(.*9)",
    "{.*3}",
    "[.*3]",
    "[(.*2) . (.*2)]",
    "[(.*2)*2 .]",
    "((.*2)*2)",
    "((.*4)*3)",
    "((.*4)*3 (.*3))",
    "((.*4)*3 .)",
    "(((.*4)*2) (.*3))",
    "(.*3 (.*2) .)",
    "({.*3} .)",
    "{. (.*3)}",
    "{.*2 (.*3)}",
    "{.*5 (.*6)}",
    "{.*3 (.*4)}",
    "{.*3 [.*6]}",
    "([.*4]*3 .)",
    "{[.*3] [.*4]}",
    "([.*3] (.*2))",
    "((((.*2)*2)*2)*3)",
    "({{.*3} (.*4)}*2)",
]


@pytest.mark.parametrize("text", SHORTEST)
def test_chains_and_repetitions_are_folded(text):
    tree = given_anyhow(read(text), DRAW)
    assert describe(tree) == text


def test_a_description_is_cut_where_it_is_too_long_or_too_deep():
    tree = given_anyhow(read("((.*4)*3 (.*3))"), DRAW)
    whole = describe(tree)
    assert describe(tree, limit=len(whole)) == whole
    assert describe(tree, limit=len(whole) - 1) == "(…15 terms…)"
    assert describe(tree, limit=len("(.*4)") - 1) == "(…15 terms…)"
    # By default a line has 160 characters at most, and 12 levels.
    for tens, cut in ((7, False), (8, True)):
        line = "[" + " ".join([". (.*10)"] * tens + [". (.*2)"] * (19 - tens)) + "]"
        assert len(line) == 153 + tens
        assert (describe(given_anyhow(read(line), DRAW)) != line) == cut
    nested = (0, 1, 2)
    for level in range(2, 15):
        n = 2 * level + 1
        nested = (nested, n - 2, n - 1)
        said = describe(given_anyhow(nested, DRAW), limit=1000)
        assert said == (
            "[" * level + ".*3]" + " .*2]" * (level - 1)
            if level < 12
            else "[" * (level - 12) + "[…25 terms…]" + " .*2]" * (level - 12)
        )


def test_a_report_holds_descriptions_up_to_2000_characters():
    for tens, whole in ((7, True), (8, False)):
        line = "[" + " ".join([". (.*10)"] * tens + [". (.*2)"] * (249 - tens)) + "]"
        assert len(line) == 1993 + tens
        tree = given_anyhow(read(line), DRAW)
        held = Part("key order", "same", trees={"decode": tree}).json()["trees"]["decode"]
        assert (held["shape"] == line) == whole


def test_a_run_names_its_first_and_last_sum_and_equal_sums_have_one_shape():
    for nested in SUMS:
        tree = given_anyhow(nested, DRAW)
        if not tree.nodes:
            continue
        folded, parts = fold(tree), by_id(nested)
        shapes = {}
        for x, runs in folded.runs.items():
            summands = opened(parts, x, folded.kinds[x], sum(run.count for run in runs))
            at = 0
            for run in runs:
                alike = summands[at : at + run.count]
                at += run.count
                assert (run.first, run.last) == (alike[0], alike[-1])
                for each in alike:
                    assert shapes.setdefault(run.shape, shape(parts[each])) == shape(parts[each])
            neighbours = itertools.pairwise(runs)
            assert all(shape(parts[a.first]) != shape(parts[b.first]) for a, b in neighbours)
        assert len(set(shapes.values())) == len(shapes)
        assert folded.root == len(parts) - 1


def opened(parts, x, kind, count) -> list[int]:
    """The ids of what ``x`` adds: ``count`` summands, from left to right."""
    of = {frozenset(leaves(part)): at for at, part in enumerate(parts)}

    def children(x):
        ids = [of[frozenset(leaves(part))] for part in parts[x]]
        return sorted(ids, key=lambda x: min(leaves(parts[x])))

    found = children(x)
    while len(found) < count:
        found = (
            [*children(found[0]), *found[1:]]
            if kind == "up"
            else [*found[:-1], *children(found[-1])]
        )
    return found

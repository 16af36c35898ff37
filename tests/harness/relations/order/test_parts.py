"""What becomes of a tree: found on decode, certified there with moved probes, and on prefill."""

from __future__ import annotations

from typing import Any

import pytest
from order_sides import CHAIN, DECLARED, ORDER, N, method, sides, within

from kvparity.relations.order import NotATree
from kvparity.relations.order import parts as rooms
from kvparity.relations.order.parts import key_part, tree_part

# a tree: (decode, prefill, order) -> status, words, what was asked of either side

TREES: dict[str, tuple[dict, dict, Any, str, str, list, list]] = {
    "same": ({}, {}, None, "same", "", ["recover", 1, "again"], [0, "again"]),
    "different": (
        {}, {"tree": CHAIN}, None, "different",
        "only decode forms the partial sum of 2 terms 16..17",
        ["recover", 1, "again"], [0, "recover", 1, "again"],
    ),
    "declared": ({}, {}, ORDER, "same", "", [0, 1, "again"], [0, "again"]),
    "within-is-free": (
        {"tree": within()}, {"tree": within()}, ORDER, "same", "",
        [0, "recover", 1, "again"], [0, "again"],
    ),
    "undeclared": (
        {"tree": CHAIN}, {"tree": CHAIN}, ORDER, "undeclared",
        "no partial sum of the keys 16..31 is formed", [0, "recover", 1, "again"], [0, "again"],
    ),
    "prefill-is-not-declared": (
        {}, {"tree": CHAIN}, ORDER, "different", "only decode forms", [0, 1, "again"],
        [0, 0, "recover", 1, "again"],
    ),
    "decode-is-not-declared": (
        {"tree": CHAIN}, {}, ORDER, "different", "only prefill forms", [0, "recover", 1, "again"],
        [0, 0, 1, "again"],
    ),
    "neither-is-declared": (
        {"tree": CHAIN}, {"tree": within()}, ORDER, "different", "only decode forms",
        [0, "recover", 1, "again"], [0, 0, "recover", 1, "again"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", TREES)
def test_a_tree_is_found_on_decode_and_certified_on_prefill(row):
    decode, prefill, order, status, words, of_decode, of_prefill = TREES[row]
    mine, other = sides(decode, prefill, order)
    found = tree_part(method(), mine, other)
    assert (found.name, found.status) == ("key order", status)
    assert found.seen.startswith(words)
    assert bool(found.seen) == bool(words)
    assert (mine.asked, other.asked) == (of_decode, of_prefill)
    trees = {"decode": mine.tree}
    if status == "different":
        trees["prefill"] = other.tree
    assert found.trees == trees
    assert (found.decode == found.prefill) == (mine.tree == other.tree)
    named = {"certify decode", "certify prefill"}
    for name, asked in (("decode", of_decode), ("prefill", of_prefill)):
        named |= {f"recover {name}"} if "recover" in asked else set()
        named |= {f"try {name}"} if order and asked.count(0) > (name == "prefill") else set()
    assert set(found.cost) == named
    for cost in found.cost.values():
        assert cost.probes >= N - 1


LYING = {
    "decode-moved": (
        {"moved": CHAIN}, {}, None, "decode: a tree was recovered, but moved to other columns",
    ),
    "prefill-moved": (
        {}, {"tree": CHAIN, "moved": DECLARED}, None, "prefill: a tree was recovered, but moved",
    ),
    "decode-moved-from-what-is-declared": (
        {"moved": CHAIN}, {}, ORDER, "decode adds in the declared order, but with probes moved",
    ),
    "prefill-moved-from-what-is-declared": (
        {"tree": CHAIN}, {"moved": CHAIN}, ORDER, "prefill adds in the declared order, but with",
    ),
    "prefill-changes": (
        {}, {"tree": CHAIN, "moved": DECLARED, "changes": DECLARED}, None,
        "prefill answers differently from call to call (terms ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", LYING)
def test_answers_that_do_not_hold_elsewhere_or_again_are_no_tree(row):
    decode, prefill, order, words = LYING[row]
    with pytest.raises(NotATree) as told:
        tree_part(method(), *sides(decode, prefill, order))
    assert str(told.value).startswith(words)


# the order of keys: which weights are asked with, and when


@pytest.fixture
def key_probes(monkeypatch):
    class Probes:
        def __init__(self, side, mode, turn=0):
            self.side, self.oracle = side, side.oracle(turn, mode)
            side.asked.append((mode, turn))
            self.n = N

        launches = 0

        def __call__(self, pairs):
            return self.oracle(pairs)

    monkeypatch.setattr(rooms, "KeyOrder", Probes)


UNIFORM = [("uniform", 0), ("uniform", 1), ("contrast", 2)]
ALONE = [("alone", 0), ("alone", 1), ("alone", 2)]


@pytest.mark.parametrize(
    ("lies", "name", "asked"),
    [
        ((), "", UNIFORM),
        (("uniform",), "", ALONE),
        ((), "fp8_e4m3", ALONE),
        ((), "fp8_e5m2", UNIFORM),
    ],
)
def test_keys_are_asked_with_equal_weights_and_where_that_fails_alone(
    key_probes, lies, name, asked
):  # fmt: skip
    mine, other = sides({"lies": lies, "name": name}, {"lies": lies, "name": name})
    assert key_part(mine, other).status == "same"
    assert (mine.asked, other.asked) == (asked, [asked[0], asked[2]])


@pytest.mark.parametrize("which", ["decode", "prefill"])
@pytest.mark.parametrize(("mode", "lies"), [("contrast", ()), ("alone", ("uniform",))])
def test_an_order_that_other_weights_do_not_show_depends_on_the_data(key_probes, which, mode, lies):
    faults = {"decode": {"lies": lies}, "prefill": {"lies": lies}}
    faults[which]["by_mode"] = {mode: CHAIN}
    if mode == "alone":  # what is asked again in the same way is moved
        faults[which] = {"lies": lies, "moved": CHAIN}
    with pytest.raises(
        NotATree, match=f"^{which}: " if mode == "contrast" else "^(decode|prefill)"
    ):
        key_part(*sides(faults["decode"], faults["prefill"]))


def test_where_no_weights_give_whole_numbers_both_reasons_are_told(key_probes):
    every = {"lies": ("uniform", "alone")}
    with pytest.raises(NotATree) as told:
        key_part(*sides(every, {}))
    assert str(told.value) == (
        "no order can be read; uniform weights: decode lies; alone weights: decode lies"
    )


def test_why_no_tree_fits_is_explained(key_probes, monkeypatch):
    monkeypatch.setattr(rooms, "explain", lambda side, mode, why: f"{side.which} {mode}: {why}")

    def fail(probes):
        raise NotATree("odd")

    monkeypatch.setattr(rooms, "recover", fail)
    with pytest.raises(NotATree, match=r"^decode uniform: odd$"):
        key_part(*sides({}, {}))

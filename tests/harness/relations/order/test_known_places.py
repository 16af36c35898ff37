"""One place adds in another order than all others: which probes look at it, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from order_known import Known, as_tree, chains, down, holds, side, up

from kvparity.relations.order import recover
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.heterogeneous import explain
from kvparity.relations.order.keys import KeyOrder
from kvparity.relations.order.parts import DENOMINATOR, PRODUCTS
from kvparity.relations.order.products import ProductOrder
from kvparity.relations.order.query_products import QueryProducts

PLACES = [(b, h, c) for b in (0, 1) for h in range(4) for c in (0, 3, 15)]


@pytest.mark.parametrize("mode", ["uniform", "contrast", "alone"])
def test_every_column_of_every_head_is_looked_at_where_there_are_pairs_enough(mode):
    """Equal weights: 64 places. Lone ones: a column for each of 8 query heads, which turns."""
    keys = 100 if mode != "alone" else 20
    places = PLACES if mode != "alone" else [(b, h, r) for b, h, r in PLACES if r == 3]
    for place in places:
        b, h, c = place
        others = {place: chains(keys, by=down)}
        if mode != "alone":  # all heads of a group answer alike, or it is told
            others = {(b, h - h % 2 + r, c): chains(keys, by=down) for r in (0, 1)}
        known = Known(chains(keys), others)
        at = side(known, keys=keys)
        turns = (0,) if mode != "alone" else range(16)
        assert not all(holds(KeyOrder(at, mode, turn=turn), up(keys)) for turn in turns), place
    fine = side(Known(chains(keys)), keys=keys)
    assert holds(KeyOrder(fine, mode), up(keys))


FEW = {
    "keys-uniform": (lambda at, turn: KeyOrder(at, "uniform", turn=turn), {}, "keys"),
    "keys-contrast": (lambda at, turn: KeyOrder(at, "contrast", turn=turn), {}, "keys"),
    "keys-alone": (lambda at, turn: KeyOrder(at, "alone", turn=turn), {}, "keys"),
    "keys-of-codes": (
        lambda at, turn: KeyOrder(at, "uniform", turn=turn),
        {"store": "int8(4)"},
        "keys",
    ),
    "denominator": (lambda at, turn: Denominator(at, turn=turn), {}, "weights"),
    "products": (lambda at, turn: ProductOrder(at, turn=turn), {}, "dims"),
    "products-of-codes": (
        lambda at, turn: QueryProducts(at, turn=turn),
        {"store": "int8(4)"},
        "dims",
    ),
}


@pytest.mark.parametrize("name", FEW)
def test_a_turn_moves_few_probes_to_other_sequences_heads_and_columns(name):
    """What differs between the calls of two turns is where masks lie; no place is used twice."""
    make, more, part = FEW[name]
    used = []
    for turn in (0, 1, 2, 3):
        known = Known(chains(4, 4))
        at = side(known, keys=4, heads=(4, 2, 4), **more)
        oracle = make(at, turn)
        known.calls.clear()
        if part == "weights":
            assert oracle(np.array([[0, 1, 2], [1, 2, 0]])).tolist() == [True, False]
        else:
            assert oracle(np.array([[0, 1], [2, 1]])).tolist() == [2, 3]
        (call,) = known.calls
        used.append(masked(call, part))
    assert len(set(used[0]) & set(used[1])) == 0
    assert len(set(map(frozenset, used))) > 1


@pytest.mark.parametrize("turn", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
def test_a_turn_moves_the_key_that_asks_for_products(oracle, turn):
    known, more = Known(chains(5, 4)), {} if oracle is ProductOrder else {"store": "int8(4)"}
    at = side(known, keys=5, heads=(4, 2, 4), **more)
    (oracle(at) if turn is None else oracle(at, turn=turn))(np.array([[0, 1]]))
    call = known.calls[-1]
    asks = (call["k"] if oracle is ProductOrder else call["v"])[:, 2:].abs().amax((0, 2, 3)) > 0
    assert asks.nonzero().flatten().tolist() == [(turn or 0) % 3]


METHODS = {
    "denominator": (DENOMINATOR, {}),
    "products": (PRODUCTS, {}),
    "products-of-codes": (PRODUCTS, {"store": "fp8_e5m2(head)"}),
}


@pytest.mark.parametrize("name", METHODS)
def test_an_order_is_certified_at_other_places_than_where_it_was_found(name):
    """The heads that are asked first with a turn add otherwise."""
    method, more = METHODS[name]
    mixed = [(1, head, column) for head in (2, 3) for column in range(3)]
    known = Known(chains(3, 3), {place: chains(3, 3, by=down) for place in mixed})
    at = side(known, keys=3, heads=(4, 2, 3), **more)
    tree, _ = method.recover(at)
    assert tree == as_tree(up(3))
    assert method.certify(at, tree, 0).holds
    assert not method.certify(at, tree, 1).holds


def masked(call, part):
    """(sequence, head[, column or key]) of the places of a call that ask something."""
    if part == "weights":
        light = call["scores"].amin(0) < call["scores"].amax(0)
        shown = call["v"].abs().amax((1, 3)) > 0
        return [tuple(map(int, place)) for place in (light & shown).nonzero()]
    held = call["v"] if part == "keys" else call["k"]
    if part == "keys":
        high = (held < 0).any(1)
        return [tuple(map(int, place)) for place in high.nonzero()]
    if bool((held < 0).any()):
        return [tuple(map(int, place)) for place in (held < 0).any(3).nonzero()]
    return [tuple(map(int, place)) for place in (call["q"] < 0).any(2).nonzero()]


def test_only_the_columns_that_are_named_are_asked():
    others = {(b, h, 5): chains(9, by=down) for b in (0, 1) for h in range(4)}
    at = side(Known(chains(9), others), keys=9)
    for column in (0, 4, 5, 15):
        found, _ = recover(KeyOrder(at, "uniform", columns=(column,)))
        assert found == as_tree((down if column == 5 else up)(9))


@pytest.mark.parametrize("column", [0, 3, 7, 11, 15])
def test_columns_that_differ_are_named(column):
    others = {(b, h, column): chains(9, by=down) for b in (0, 1) for h in range(4)}
    said = explain(side(Known(chains(9), others), keys=9), "uniform", "none fits")
    assert "decode: columns of V are reduced in different orders: " in said
    assert f"column {column}" in said
    assert f"column {0 if column else 3}" in said


def test_what_cannot_be_explained_is_told_as_it_was():
    for which in ("decode", "prefill"):
        at = side(Known(chains(9)), which, keys=9)
        assert explain(at, "uniform", "none fits") == f"{which}: none fits"


def test_answers_that_change_are_counted():
    known = Known(chains(9))

    class Turning(Known):
        def _attend(self, orders, call):
            return super()._attend(chains(9, by=(up, down)[len(self.calls) % 2]), call)

    said = explain(side(Turning(known.orders), keys=9), "uniform", "none fits")
    assert "of 16 answers changed when the same call was repeated (none fits)" in said
    assert 1 <= int(said.removeprefix("decode: ").split()[0]) <= 16


def test_a_column_that_no_tree_fits_is_passed_over_and_a_lie_is_told():
    class Odd(Known):
        def _attend(self, orders, call):
            out, lse = super()._attend(orders, call)
            if call["v"][..., 0].abs().max() > 0:  # where column 0 asks
                out[..., 0] += self.by
            return out, lse

    odd = Odd(chains(9), {(b, h, 15): chains(9, by=down) for b in (0, 1) for h in range(4)})
    odd.by = 3.0 / 9
    said = explain(side(odd, keys=9), "uniform", "none fits")
    assert "columns of V are reduced in different orders" in said
    assert "column 15" in said
    odd.by = 0.4 / 9
    said = explain(side(odd, keys=9), "uniform", "none fits")
    assert said.startswith("decode: none fits; decode, key order: ")
    assert "not whole numbers" in said

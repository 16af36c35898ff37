"""What leaves no room for a probe, what is misread, and the numbers that products are made of."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from order_known import Known, Orders, as_tree, chains, down, holds, side, up

from kvparity.relations.order import NotATree, NotMeasured, ProbeLied, recover
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.keys import KeyOrder
from kvparity.relations.order.products import ProductOrder, below, with_round_scale
from kvparity.relations.order.query_products import QueryProducts

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


# what leaves no room


@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
@pytest.mark.parametrize("sizes", [(2, 16), (3, 2), (2, 2)], ids=str)
def test_products_need_three_keys_and_dimensions(oracle, sizes):
    keys, dim = sizes
    make = partial(side, Known(chains(keys, dim)), keys=keys, heads=(4, 2, dim))
    with pytest.raises(NotMeasured, match="fewer than three keys or dimensions"):
        oracle(make(store="int8(2)") if oracle is QueryProducts else make())


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
def test_three_keys_and_dimensions_are_enough(oracle, dtype):
    store = {"store": "fp8_e5m2(head)"} if oracle is QueryProducts else {}
    at = side(Known(chains(3, 3)), keys=3, heads=(2, 1, 3), dtype=dtype, **store)
    assert recover(oracle(at))[0] == as_tree(up(3))


def test_heads_too_small_for_weights_of_codes_are_not_measured():
    """Three levels of weights take three 16-bit numbers each: nine dimensions."""
    for dim, fits in ((8, False), (9, True)):
        store = "fp8_e5m2(head)"
        at = side(Known(chains(5, dim)), keys=5, heads=(2, 1, dim), dtype=BF16, store=store)
        for make in (partial(KeyOrder, at, "alone"), partial(Denominator, at)):
            if fits:
                assert make().n == 5
            else:
                with pytest.raises(NotMeasured, match="8 dimensions of a head leave no room"):
                    make()(np.array([[0, 1, 2]]))
        assert holds(KeyOrder(at, "uniform"), up(5))


def test_16_bit_denominators_and_sinks_need_the_log_sum_exp():
    for dtype, sinks in ((BF16, False), (F16, False), (F32, True), (BF16, True)):
        known = Known(Orders(up(16), up(5 + sinks), up(5)), lse=False)
        with pytest.raises(
            NotMeasured, match="and only that shows a sink" if sinks else "16-bit results"
        ):
            Denominator(side(known, keys=5, dtype=dtype, sinks=sinks))
    assert holds(Denominator(side(Known(chains(5), lse=False), keys=5)), up(5))


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("value", ["1", r"1 \+ 2\*\*-23"])
def test_a_denominator_that_is_misread_is_told_before_it_is_asked(value, sinks):
    class Off(Known):
        def _attend(self, orders, call):
            out, lse = super()._attend(orders, call)
            return out, lse + 1.2e-7 if value == "1" else torch.where(lse < 1e-6, 0.0, lse)

    known = Off(Orders(up(16), up(5 + sinks), up(5)))
    at = side(known, keys=5, dtype=BF16, sinks=sinks)
    with pytest.raises(NotMeasured, match=f"decode: a denominator of {value} is not recovered"):
        Denominator(at)


def test_a_sink_that_alone_is_misread_is_told():
    class Deaf(Known):
        def _attend(self, orders, call):
            return super()._attend(orders, {**call, "sinks": call["sinks"] - 99.0})

    at = side(Deaf(Orders(up(16), up(6), up(5))), keys=5, sinks=True)
    with pytest.raises(NotMeasured, match="with a sink is not recovered"):
        Denominator(at)


def test_what_a_denominator_is_tried_on():
    """Key 0 beside key 1, then beside the sink, each as the heavier: 1, and 1 + 2**-23."""
    for sinks in (False, True):
        known = Known(Orders(up(16), up(5 + sinks), up(5)))
        Denominator(side(known, keys=5, sinks=sinks))
        tried = []
        for call in known.calls:
            scores = call["scores"]
            if sinks:
                scores = torch.cat([scores, call["sinks"].expand_as(scores[:1])])
            log2 = (scores / math.log(2)).reshape(5 + sinks, -1)
            assert (log2 == log2[:, :1]).all()  # in every head
            tried.append({x: round(float(s)) for x, s in enumerate(log2[:, 0]) if s > -99})
        pairs = ((0, 1), (0, 5), (5, 0)) if sinks else ((0, 1),)
        assert tried == [each for a, b in pairs for each in ({a: 0}, {a: 0, b: -23})]


@pytest.mark.parametrize("place", [(0, 0), (1, 3)], ids=str)
@pytest.mark.parametrize("call", range(1, 7))
def test_one_head_of_which_one_trial_is_misread_is_enough(call, place):
    class Off(Known):
        def _attend(self, orders, given):
            out, lse = super()._attend(orders, given)
            if len(self.calls) == call:
                lse[place] = 0.0 if call % 2 == 0 else 1.2e-7
            return out, lse

    value = "1 + 2**-23" if call % 2 == 0 else "1"
    with pytest.raises(NotMeasured) as told:
        Denominator(side(Off(Orders(up(16), up(6), up(5))), keys=5, sinks=True))
    sink = " with a sink" if call > 2 else ""
    assert str(told.value) == f"decode: a denominator of {value}{sink} is not recovered"


def test_a_denominator_is_tried_once_for_each_side_and_softcap():
    known = Known(chains(5))
    at = side(known, keys=5)
    Denominator(at)
    calls = len(known.calls)
    assert calls == 2
    Denominator(at, turn=1)
    assert len(known.calls) == calls
    Denominator(at.changed(softcap=64.0))
    assert len(known.calls) == 2 * calls


# the numbers of products


def test_the_scale_of_products_is_the_nearest_power_of_four():
    for scale, near in ((1.0, 1.0), (0.3, 0.25), (0.12, 0.0625), (0.13, 0.25), (3.0, 4.0)):
        at = side(Known(chains(4)), keys=4, scale=scale)
        assert with_round_scale(at).subject.scale == near, scale


@pytest.mark.parametrize(("dtype", "span"), [(F32, 16.0), (BF16, 32.0), (F16, 8.0)], ids=str)
def test_a_softcap_that_products_do_not_fit_below_is_another(dtype, span):
    """Up to nine tenths of a cap the scores can be."""
    for room, other in ((1.05, True), (1.15, False)):
        at = side(Known(chains(4)), keys=4, dtype=dtype, softcap=room * span)
        assert (with_round_scale(at).subject.softcap != room * span) == other


@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
@pytest.mark.parametrize("dim", [4, 12, 16, 18])
def test_products_are_powers_of_two_and_a_mask_swallows_all_units(oracle, dim, dtype):
    """Where the dtype is narrow, units are as large as that allows, within a factor of two."""
    known = Known(chains(4, dim))
    store = {"store": "int8(2)"} if oracle is QueryProducts else {}
    at = side(known, keys=4, heads=(2, 1, dim), dtype=dtype, **store)
    oracle(at)(np.array([[0, 1]]))
    call = known.calls[-1]
    for held in (call["q"], call["k"]):
        assert set(torch.frexp(held[held != 0].abs())[0].tolist()) == {0.5}
    asks = call["k"] if oracle is ProductOrder else call["q"]
    unit, mask = (float(x) for x in (asks[asks > 0].min(), asks.max()))
    assert sorted({abs(float(x)) for x in asks.flatten()} - {0.0}) == [unit, mask]
    assert dim * unit <= mask * 2.0**-26
    assert dtype != F16 or dim * unit > mask * 2.0**-27


@pytest.mark.parametrize(("dim", "asking"), [(3, 1), (4, 1), (7, 1), (8, 2), (16, 4), (40, 8)])
def test_heads_that_ask_at_once_leave_half_of_the_dimensions_to_count(dim, asking):
    """Each takes two; key 1 scores none of them. All the same every order is found."""
    known = Known(chains(4, dim, by=down))
    at = side(known, keys=4, heads=(8, 1, dim), batch=1, store="fp8_e5m2(head)")
    assert recover(QueryProducts(at))[0] == as_tree(down(dim))
    assert max(int((call["q"] < 0).any(2).sum()) for call in known.calls) == asking
    for call in known.calls:
        assert 2 * int((call["k"][0, 1] != 0).all(0).sum(-1)) >= min(dim, 3) - 1


def test_below_is_the_largest_power_of_two():
    for x in (1.0, 1.5, 1.99, 2.0, 0.3, 0.25, 77.0, 2.0**-20):
        assert math.frexp(below(x))[0] == 0.5
        assert below(x) <= x < 2 * below(x)


@pytest.mark.parametrize(("dtype", "span"), [(F32, 16.0), (BF16, 32.0), (F16, 8.0)], ids=str)
@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
def test_scores_of_products_fill_the_span_that_the_dtype_has(oracle, dtype, span):
    """Key 1 has all units: the highest score of all. It is the span where that can be."""
    for dim in (16, int(span) + (1 if oracle is ProductOrder else 2)):
        known = Known(chains(4, dim))
        store = {"store": "int8(2)"} if oracle is QueryProducts else {}
        at = side(known, keys=4, heads=(2, 1, dim), dtype=dtype, **store)
        oracle(at)(np.array([[0, 1]]))
        top = float(known.calls[-1]["scores"].max())
        counted = dim if oracle is ProductOrder else dim - 2
        room = 8 if dtype == F16 else 2  # float16 has no numbers to fill it
        assert span / room * counted / dim < top <= span


def test_query_heads_that_differ_are_no_order():
    others = {(b, 1, c): chains(5, by=down) for b in (0, 1) for c in range(16)}
    with pytest.raises(NotATree, match="query heads of one group"):
        recover(KeyOrder(side(Known(chains(5), others), keys=5), "uniform"))


def test_what_is_no_count_of_units_is_told():
    class Scaled(Known):
        def _attend(self, orders, call):
            out, lse = super()._attend(orders, call)
            return out * 1.1, lse

    with pytest.raises(ProbeLied, match="decode, key order"):
        recover(KeyOrder(side(Scaled(chains(9)), keys=9), "uniform"))

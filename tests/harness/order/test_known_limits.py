"""What leaves no room for a probe, what is misread, and the numbers that products are made of."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from order_known import Known, Orders, as_tree, chains, down, holds, side, up

from kvparity.order import NotATree, NotMeasured, ProbeLied, recover
from kvparity.order.denominator import Denominator
from kvparity.order.keys import KeyOrder
from kvparity.order.products import ProductOrder, below, with_round_scale
from kvparity.order.query_products import QueryProducts

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
def test_three_keys_and_dimensions_are_enough(dtype):
    known = Known(chains(3, 3))
    assert recover(ProductOrder(side(known, keys=3, heads=(2, 1, 3), dtype=dtype)))[0] == as_tree(
        up(3)
    )


def test_heads_too_small_for_weights_of_codes_are_not_measured():
    """Three levels of weights take three 16-bit numbers each: nine dimensions."""
    for dim, fits in ((8, False), (10, True)):
        at = side(Known(chains(5, dim)), keys=5, heads=(2, 1, dim), dtype=BF16, store="int8(2)")
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
            NotMeasured, match="in which alone a sink" if sinks else "16-bit results"
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
    with pytest.raises(NotMeasured, match=f"decode: a denominator of {value} is not read as such"):
        Denominator(at)


def test_a_sink_that_alone_is_misread_is_told():
    class Deaf(Known):
        def _attend(self, orders, call):
            return super()._attend(orders, {**call, "sinks": call["sinks"] - 99.0})

    at = side(Deaf(Orders(up(16), up(6), up(5))), keys=5, sinks=True)
    with pytest.raises(NotMeasured, match="with a sink is not read as such"):
        Denominator(at)


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


def test_below_is_the_largest_power_of_two():
    for x in (1.0, 1.5, 1.99, 2.0, 0.3, 0.25, 77.0, 2.0**-20):
        assert math.frexp(below(x))[0] == 0.5
        assert below(x) <= x < 2 * below(x)


@pytest.mark.parametrize(("dtype", "span"), [(F32, 16.0), (BF16, 32.0), (F16, 8.0)], ids=str)
@pytest.mark.parametrize("oracle", [ProductOrder, QueryProducts])
def test_scores_of_products_fill_the_span_that_the_dtype_has(oracle, dtype, span):
    """Key 1 has all units: the highest score of all. It is the span where that can be."""
    for dim in (16, int(span) + 2):
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

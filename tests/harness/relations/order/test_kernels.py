"""The project's own kernels are consistent, in the order that ``ReductionOrder`` declares."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from order_pairs import subject

from kvparity.relations.order import NotMeasured, order_report
from kvparity.relations.order.canonical import chain, denominator_order, key_order, rescale_edges
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.parts import DENOMINATOR, edges_part, key_part, tree_part
from kvparity.relations.order.rescale import RescaleEdges, recover_edges
from kvparity.relations.order.sides import Side
from kvparity.subjects.attention_calls import by_keywords
from kvparity.subjects.pair.model import Pair
from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder()


def kernels(**decode_order) -> Pair:
    other = partial(decode, order=ReductionOrder(**decode_order)) if decode_order else decode
    return Pair.of(prefill, other, "kernels:prefill", "kernels:decode")


def sides(pair: Pair, keys: int, heads=(16, 1, 32), rows: int = 1) -> tuple[Side, Side]:
    return (
        Side(subject(pair, heads=heads), "decode", keys=keys, batch=1, rows=1),
        Side(subject(pair, heads=heads), "prefill", keys=keys, batch=1, rows=rows),
    )


@pytest.mark.parametrize(
    ("keys", "rows", "told"), [(17, 17, False), (33, 4, True)], ids=["17-17", "33-4"]
)
def test_all_five_parts_are_the_same_and_the_declared_order(keys, rows, told):
    """Over a tile recovered, against a whole prompt; over a split tried, which is cheaper."""
    order = ReductionOrder(split=32, tile=16, block_m=16)
    pair = Pair.of(partial(prefill, order=order), partial(decode, order=order), "p", "d")
    which = subject(pair, heads=(8, 1, 16), order=order if told else None)
    found = order_report(which, keys, rows=rows, draws=1)
    assert found.verdict == "consistent", found.reason
    assert [part.status for part in found.parts] == ["same"] * 5
    trees = {part.name: part.trees["decode"].fingerprint for part in found.parts if part.trees}
    assert trees == {
        "key order": key_order(order, keys).fingerprint,
        "denominator": denominator_order(order, keys).fingerprint,
        "products": chain(16).fingerprint,
    }
    recovered = any(name.startswith("recover") for part in found.parts for name in part.cost)
    assert recovered != told
    assert found.parts[4].decode == "divides by l"


def test_the_rescale_edges_are_the_declared_ones():
    decode_side, _ = sides(kernels(), 300)
    edges, _ = recover_edges(RescaleEdges(decode_side))
    assert (edges.up, edges.down) == rescale_edges(ORDER, 300)
    assert edges.down == (256,)


def test_a_last_split_of_one_key_hides_no_other_split():
    order = ReductionOrder(tile=16, split=16)
    pair = Pair.of(partial(prefill, order=order), partial(decode, order=order), "p", "d")
    decode_side, _ = sides(pair, 49)
    edges, _ = recover_edges(RescaleEdges(decode_side))
    assert (edges.up, edges.down) == rescale_edges(order, 49) == ((16, 32, 48), (16, 32))


def test_another_tile_in_decode_is_seen_by_denominator_and_edges_alone():
    pair = sides(kernels(tile=16, split=256), 20, heads=(16, 1, 16))
    assert key_part(*pair).status == "same"
    assert tree_part(DENOMINATOR, *pair).status == "different"
    edges = edges_part(*pair)
    assert (edges.decode, edges.prefill) == (
        "ascending at 16; descending none seen",
        "ascending none seen; descending none seen",
    )


def test_another_split_in_decode_is_seen_by_the_key_order():
    found = key_part(*sides(kernels(tile=16, split=16), 40))
    assert found.status == "different"
    assert found.trees["decode"] == key_order(ReductionOrder(tile=16, split=16), 40)
    assert found.trees["prefill"] == key_order(ORDER, 40)
    assert "only decode forms the partial sum" in found.seen


def test_declared_orders_differ_where_they_should():
    other = ReductionOrder(split=128, tile=64)
    assert key_order(ORDER, 130) != key_order(other, 130)
    assert key_order(ORDER, 128) == key_order(other, 128)
    assert denominator_order(ORDER, 300) != denominator_order(ReductionOrder(tile=32), 300)
    assert rescale_edges(other, 300) == ((64, 128, 192, 256), (128, 256))


@pytest.mark.parametrize(
    ("keys", "store", "more"),
    [
        (20, "", {"window": 18, "softcap": 5.0, "sinks": True}),  # the window's edge
        (40, "", {"window": 18, "softcap": 5.0, "sinks": True}),  # behind a split
        (19, "fp8_e4m3(head)", {"window": 17}),
    ],
)
def test_what_hides_keys_and_scores_leaves_the_declared_order(keys, store, more):
    order = ReductionOrder(split=32, tile=16, block_m=16)
    which = subject(kernels(), heads=(4, 1, 16), store=store, order=order, **more)
    only = ("key order", "denominator", "products", "rescale edges")
    found = order_report(which, keys, rows=2, draws=1, only=only)
    assert found.verdict == "consistent", found.reason
    assert [part.status for part in found.parts] == ["same"] * 4
    first = keys - more["window"]
    assert {part.name: part.trees["decode"] for part in found.parts if part.trees} == {
        "key order": key_order(order, keys, first),
        "denominator": denominator_order(order, keys, first, sink="sinks" in more),
        "products": chain(16),
    }
    assert not any(name.startswith("recover") for part in found.parts for name in part.cost)


def test_a_log_sum_exp_that_resolves_too_little_is_no_measurement():
    def coarse(*args, **more):
        out, lse = decode(*args, **more)
        return out, lse.round(decimals=4)

    base = kernels()
    side = Side(
        subject(replace(base, decode=by_keywords(coarse)), torch.bfloat16),
        "decode",
        keys=20,
        batch=1,
        rows=1,
    )
    with pytest.raises(NotMeasured, match=r"1 \+ 2\*\*-23 is not recovered"):
        Denominator(side)

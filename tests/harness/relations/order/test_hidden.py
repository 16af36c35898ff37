"""Orders behind windows, softcaps, sinks and stored codes: certified, and every fault is seen.

The pairs are written in torch, where a probe costs little; ``test_kernels`` looks at the kernels.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from few import few
from order_pairs import How, pair, subject

import kvparity_kernels.attention as attention
from kvparity.relations.order import order_report
from kvparity.relations.order.canonical import key_order, rescale_edges
from kvparity.relations.order.parts import tried
from kvparity.relations.order.rescale import RescaleEdges, recover_edges
from kvparity.relations.order.sides import PROBED_CAP, Side
from kvparity.subjects.pair.model import Pair
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder(split=64, tile=16)  # that of ``How()``
KEYS = ("key order",)
SUMS = ("key order", "denominator")


def report(fault: Pair, keys: int, only=KEYS, dtype=torch.float32, **more):
    found = subject(fault, dtype, order=ORDER, **more)
    return order_report(found, keys, rows=1, draws=1, only=only)


def both(how: How) -> Pair:
    return pair(how)


def statuses(found) -> dict[str, str]:
    return {part.name: part.status for part in found.parts}


# windows


@pytest.mark.parametrize("keys", [24, 70, 80])  # before the window's edge, across the split, behind
def test_a_window_leaves_the_declared_order_over_the_keys_that_are_seen(keys):
    found = report(pair(), keys, SUMS, window=30)
    first = max(0, keys - 30)
    assert (found.verdict, found.first) == ("consistent", first), found.reason
    assert found.parts[0].trees["decode"] == key_order(ORDER, keys, first)


def test_splits_that_begin_at_the_window_are_another_order_in_decode():
    found = report(pair(follows=True), 80, SUMS, window=30)
    assert statuses(found) == dict.fromkeys(SUMS, "different")
    assert found.verdict == "different-order"


def test_splits_that_begin_at_the_window_on_both_sides_are_not_declared():
    found = report(both(How(follows=True)), 80, SUMS, window=30)
    assert statuses(found) == dict.fromkeys(SUMS, "undeclared")
    assert found.verdict == "undeclared-order"
    assert "no partial sum of the keys 64..79 is formed" in found.reason
    alone = subject(both(How(follows=True)), window=30)  # that declares no order
    assert order_report(alone, 80, rows=1, draws=1, only=KEYS).verdict == "consistent"


def test_keys_before_the_window_that_are_let_in_are_seen():
    found = report(pair(open=True), 40, window=30)
    assert found.verdict == "not-a-tree"
    assert "readings are not whole numbers" in found.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_edges_are_those_of_tiles_and_splits_in_every_dtype(dtype):
    """In 16 bits a neighbour in another tile once read as one more edge, here 33 and 31."""
    order = ReductionOrder(split=32, tile=16, block_m=16)
    kernels = Pair.of(attention.prefill, attention.decode, "prefill", "decode")
    side = Side(
        subject(kernels, dtype, (2, 1, 32), window=24, order=order),
        "decode",
        keys=45,
        batch=1,
        rows=1,
    )
    edges, _ = recover_edges(RescaleEdges(side))
    assert (edges.up, edges.down) == rescale_edges(order, 45, 21) == ((11,), (11,))


def test_edges_that_both_have_and_no_order_declares():
    found = report(both(How(tile=32)), 70, ("rescale edges",))
    assert statuses(found) == {"rescale edges": "undeclared"}
    assert "the declared order has edges ascending every 16 keys to 64" in found.reason


def test_a_window_of_two_keys_has_one_order():
    with pytest.raises(ValueError, match="a window of 2 keys has one order; expected at least 3"):
        report(pair(), 40, window=2)


# softcaps


def test_a_softcap_hides_no_part_and_the_report_says_how_it_was_probed():
    found = order_report(subject(pair(), softcap=5.0), 36, rows=1, draws=1)
    assert found.verdict == "consistent", found.reason
    assert set(statuses(found).values()) == {"same"}
    (note,) = {note.partition(":")[0] for note in found.notes}
    assert note == "behind a softcap of 5 no weight is below 2^-7.21"
    assert all(f"with a softcap of {PROBED_CAP:g}" in note for note in found.notes)


def test_another_order_behind_a_softcap_is_seen():
    found = order_report(subject(pair(tile=32), softcap=5.0), 36, rows=1, draws=1)
    assert found.verdict == "different-order"
    names = {name for name, status in statuses(found).items() if status == "different"}
    assert names == {"denominator", "rescale edges"}


# sinks


def test_a_sink_is_the_last_term_of_the_denominator():
    found = report(pair(), 70, SUMS, sinks=True)
    assert found.verdict == "consistent", found.reason
    tree = found.parts[1].trees["decode"]
    assert tree.n == 71
    assert 70 in tree.nodes[-1]  # at the root


@pytest.mark.slow
def test_a_sink_that_is_there_before_the_keys_is_another_order():
    found = report(pair(sink_first=True), 70, SUMS, sinks=True)
    assert statuses(found) == {"key order": "same", "denominator": "different"}
    everywhere = report(both(How(sink_first=True)), 70, ("denominator",), sinks=True)
    assert everywhere.verdict == "undeclared-order"
    assert "no partial sum of the keys 0..69 is formed" in everywhere.reason
    # With one split there is nothing that a sink could come before.
    assert report(pair(sink_first=True), 20, ("denominator",), sinks=True).verdict == "consistent"


def test_a_sink_shows_in_the_log_sum_exp_alone():
    base = pair()
    mute = replace(
        base,
        decode=lambda call: base.decode(call)[0],
        prefill=lambda call: base.prefill(call)[0],
    )
    (found,) = report(mute, 20, ("denominator",), sinks=True).parts
    assert (found.status, "and only that shows a sink" in found.seen) == ("not-measured", True)


# stored codes


@pytest.mark.parametrize(
    ("store", "dtype"),
    few(
        [
            ("fp8_e4m3(head)", torch.float32),
            ("fp8_e4m3(tensor)", torch.float16),
            ("fp8_e5m2(tensor)", torch.bfloat16),
            ("int8(8)", torch.float16),
            ("int4(16)", torch.bfloat16),
        ],
        2,
    ),
)
def test_codes_hold_probes_exactly(store, dtype):
    parts = (*SUMS, "products")
    found = report(pair(), 20, parts, dtype, store=store)
    assert statuses(found) == dict.fromkeys(parts, "same"), found.reason
    assert found.parts[0].trees["decode"] == key_order(ORDER, 20)


@pytest.mark.parametrize("store", ["fp8_e4m3(head)", "int4(16)"])
def test_another_order_over_codes_is_seen(store):
    found = report(pair(split=16, products=True), 20, ("key order", "products"), store=store)
    assert statuses(found) == {"key order": "different", "products": "different"}


def test_a_scale_behind_the_sum_is_the_same_order_and_gives_other_bits():
    parts = (*SUMS, "products", "rescale edges")
    found = report(pair(late=True), 20, parts, store="fp8_e5m2(head)")
    assert statuses(found) == dict.fromkeys(parts, "same")
    assert found.verdict == "same-order-different-bits"
    assert "random calls differ" in found.reason


def test_a_format_that_holds_no_probe_is_not_measured(monkeypatch):
    """Were a number of a probe rounded by the store, it would be told and nothing certified."""
    monkeypatch.setattr("kvparity.relations.order.keys.code_range", lambda *_: _wide())
    (part,) = report(pair(), 20, store="fp8_e4m3(head)").parts
    assert part.status == "not-measured"
    assert part.seen == "fp8_e4m3(head) does not hold the numbers of this probe exactly"
    assert tried("key order", lambda: part) is part


def _wide():
    from kvparity.relations.order.encoding import Range

    return Range(2.0**60, 1.0, 20, 16)

"""Planted faults: what an order report sees, in which part, and what it cannot see.

The faults are in ``order_faults``. Take a part's detection away and the tests of the faults that
only this part sees turn red.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from few import few
from order_faults import HOW, KEYS, table
from order_faults import found as planted
from order_pairs import How, decode, pair, prefill, subject

from kvparity.relations.order import order_report
from kvparity.relations.order.canonical import SumTree, chain
from kvparity.relations.order.report import PARTS
from kvparity.subjects.attention_calls import by_keywords


def report(which, keys=KEYS, **more):
    return order_report(subject(which), keys, rows=2, draws=3, **more)


def part(found, name):
    return next(part for part in found.parts if part.name == name)


def statuses(found) -> dict[str, str]:
    return {part.name: part.status for part in found.parts}


SAME = dict.fromkeys(PARTS, "same")

# verdict, and the parts that see the fault (all others are the same on both sides)
SEEN = {
    "tile": ("different-order", {"denominator", "rescale edges"}),
    "reverse": ("different-order", {"key order", "denominator", "rescale edges"}),
    "split": ("different-order", {"key order", "denominator", "rescale edges"}),
    "ragged": ("different-order", {"key order", "denominator", "rescale edges"}),
    "products": ("different-order", {"products"}),
    "reciprocal": ("same-order-different-bits", {"division"}),
}


def test_the_pair_without_a_fault_is_consistent():
    found = planted("none")
    assert found.verdict == "consistent", found.reason
    assert statuses(found) == SAME
    assert "5 of 5" in found.reason
    assert all(done.complete and done.total == 64 for done in found.replayed)
    assert part(found, "rescale edges").decode == "ascending every 8 keys to 32; descending at 32"
    assert part(found, "products").trees["decode"] == chain(16)


@pytest.mark.parametrize("name", few(SEEN, 3))
def test_a_fault_is_seen_where_it_should(name):
    verdict, by = SEEN[name]
    found = planted(name)
    assert found.verdict == verdict, found.reason
    assert {name for name, status in statuses(found).items() if status == "different"} == by
    assert set(statuses(found).values()) == {"same", "different"}
    first = next(part for part in found.parts if part.name in by)
    assert first.name in found.reason
    assert first.seen in found.reason


def test_an_order_that_depends_on_the_data_is_no_tree():
    found = planted("by_data")
    assert found.verdict == "not-a-tree"
    assert "the order depends on the data" in part(found, "key order").seen


def test_an_order_that_changes_from_call_to_call_is_no_tree():
    found = planted("shuffled")
    assert found.verdict == "not-a-tree"
    assert "changed when the same call was repeated" in part(found, "key order").seen


def test_columns_reduced_in_different_orders_are_no_tree():
    found = planted("columns")
    assert found.verdict == "not-a-tree"
    assert "columns of V are reduced in different orders" in part(found, "key order").seen


def test_another_exp_is_in_no_part_and_only_random_calls_show_it():
    found = planted("natural")
    assert statuses(found) == SAME
    assert found.verdict == "same-order-different-bits"
    assert "random calls differ" in found.reason


def test_a_fault_on_the_prefill_side_alone_is_seen_too():
    faulty = replace(
        pair(HOW), prefill=by_keywords(partial(prefill, how=replace(HOW, by_data=True)))
    )
    found = report(faulty)
    assert found.verdict == "not-a-tree"
    assert part(found, "key order").seen.startswith("prefill: ")


def test_splits_divided_before_they_are_merged_are_read_with_lone_weights():
    """Equal weights make denominators that are no powers of two, and masks that do not cancel."""
    how = How(normalised=True, split=12, tile=4)
    found = report(pair(how), 18, only=("key order",))
    assert part(found, "key order").status == "same", part(found, "key order").seen
    tree = part(found, "key order").trees["decode"]
    splits = {tuple(range(12)), tuple(range(12, 18))}
    assert splits <= {tuple(tree.terms(x)) for x in range(18, 18 + 17)}
    other = report(pair(how, split=8), 18, only=("key order",))
    assert part(other, "key order").status == "different"


def test_a_pair_that_agrees_in_16_bits_by_luck_has_different_orders():
    """A reversed loop in bfloat16: most random calls agree, and the order does not."""
    found = order_report(subject(pair(reverse=True), torch.bfloat16), 40, rows=2, draws=20)
    assert found.verdict == "different-order"
    assert found.drawn.equal > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_pairs_are_read_with_the_log_sum_exp(dtype):
    found = order_report(subject(pair(), dtype), 40, rows=2, draws=3)
    assert found.verdict == "consistent"
    assert part(found, "key order").status == "same"
    assert part(found, "denominator").status == "same"
    assert part(found, "division").status == "not-measured"
    assert "not measured" in found.reason
    # Left out is what lies half way between two numbers of the format, and that is next to nothing.
    least = 64 if dtype == torch.bfloat16 else 60
    assert all(done.complete and 64 >= done.total >= least for done in found.replayed)
    faulty = order_report(subject(pair(tile=32), dtype), 40, rows=2, draws=3)
    assert part(faulty, "denominator").status == "different"


def test_without_a_log_sum_exp_16_bits_show_no_denominator():
    def alone(q, k_cache, v_cache, *, kv_lens, scale):
        return decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale, how=How())[0]

    base = pair()
    found = order_report(
        subject(replace(base, decode=by_keywords(alone)), torch.bfloat16),
        20,
        rows=1,
        draws=1,
    )
    assert part(found, "denominator").status == "not-measured"
    assert "no log-sum-exp" in part(found, "denominator").seen


def test_replay_is_what_sees_a_sum_that_is_no_float32_addition():
    """Sums kept in float64 answer every probe as a chain does; replay tells."""

    found = planted("wide")
    assert statuses(found) == SAME
    assert found.verdict == "not-a-tree"
    assert found.reason.startswith("replay")


def test_bad_sizes_are_refused():
    for keys, more in ((2, {}), (9, {"rows": 10}), (9, {"batch": 0}), (9, {"draws": 0})):
        with pytest.raises(ValueError, match="expected at least 3 keys"):
            order_report(subject(pair()), keys, **more)


def test_trees_of_the_report_are_canonical():
    found = planted("none")
    for each in found.parts:
        for tree in each.trees.values():
            assert SumTree.build(tree.n, tree.nodes) == tree


def test_the_documentation_has_the_table_of_a_run():
    text = (Path(__file__).parents[4] / "docs/order.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in text

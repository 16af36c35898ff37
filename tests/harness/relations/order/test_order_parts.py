"""Orders and results that are wrong in one place: a kind of layer, a sum, a head, a call."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from order_pairs import How, decode, pair, prefill, subject
from order_trees import TreeOracle, TreeTriples

from kvparity.plan.kernel_cases import KernelCase, KernelNumerics
from kvparity.relations.order import SumTree, certify, order_report
from kvparity.relations.order import decoder as decoders
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.relation import certify as certify_case
from kvparity.relations.order.triples import certify_triples
from kvparity.subjects.attention_calls import by_keywords
from kvparity.subjects.pair.model import Pair

KEYS = ("key order",)
CASE = KernelCase("c000", "order", "order", KernelNumerics("float32", "float32"), keys=20)


# kinds of layers


@pytest.mark.parametrize(
    ("full", "sliding", "outcome", "named"),
    [
        ({}, {}, "holds", {"full layers", "sliding layers"}),
        ({"reverse": True}, {}, "differs", {"full layers"}),
        ({}, {"reverse": True}, "differs", {"sliding layers"}),
        (None, {}, "void", {"full layers"}),
        ({}, None, "void", {"sliding layers"}),
        (None, {"reverse": True}, "differs", {"sliding layers"}),
    ],
    ids=["none", "first-kind", "second-kind", "first-void", "second-void", "void-and-differs"],
)
def test_the_worst_kind_of_layer_counts(full, sliding, outcome, named, monkeypatch):
    """``full``, ``sliding``: the fault in decode; None: a decode whose order no probe can read."""

    def kind(fault):
        if fault is not None:
            return subject(pair(**fault))
        base = pair()
        return subject(replace(base, decode=unread(base.decode), prefill=unread(base.prefill)))

    kinds = {"full layers": kind(full), "sliding layers": kind(sliding)}
    monkeypatch.setattr(decoders, "attentions_of", lambda subject: kinds)
    found = certify_case(None, CASE, seed=0, only=KEYS, draws=1)
    assert found.outcome == outcome, found.reason
    assert set(found.details.layers) == set(kinds)
    assert {name for name in kinds if f"{name}: " in found.reason} == named
    assert found.details.verdict == found.details.layers[min(named)]["verdict"]


def unread(function):
    """Every result plus 0.3: probes find no whole numbers in it, and calls agree."""

    def called(call):
        out, lse = function(call)
        return out + 0.3, lse

    return called


# certificates


def swapped(n: int, at: int) -> SumTree:
    """A chain in which the terms ``at`` and ``at + 1`` have changed places."""
    order = [*range(at), at + 1, at, *range(at + 2, n)]
    return SumTree.build(n, [order[:2], *([n + t, order[t + 2]] for t in range(n - 2))])


@pytest.mark.parametrize("at", [1, 4, 8], ids=["first", "middle", "last"])
@pytest.mark.parametrize("by", ["pairs", "triples"])
def test_a_tree_that_differs_in_one_sum_is_not_certified(by, at):
    ask, oracle = {"pairs": (certify, TreeOracle), "triples": (certify_triples, TreeTriples)}[by]
    plain, other = chain(10), swapped(10, at)
    for behind, tree in ((plain, other), (other, plain)):
        found = ask(oracle(behind), tree)
        assert not found.holds
        assert f"of {len(plain.nodes) - (by == 'triples')} {by} differ" in found.seen
        assert ask(oracle(tree), tree).holds


# results


@dataclass(frozen=True)
class At:
    """One result: ``part`` o (of one column) or lse, in the calls ``calls`` (None: all)."""

    side: str = "decode"
    part: str = "o"
    sequence: int = 0
    head: int = 0
    column: int = 0
    call: int | None = None


SIDES = {"decode": decode, "prefill": prefill}
PLACES = {
    "first": At(),
    "prefill": At("prefill"),
    "last-column": At(column=7),
    "last-head": At(head=3),
    "second-sequence": At(sequence=1),
}


def wrong(at: At, other) -> Pair:
    """A pair that gives at one place what ``other(out, lse, call)`` gives; ``other`` gets all."""
    count = [0]

    def spoilt(*args, **more):
        out, lse = SIDES[at.side](*args, how=How(), **more)
        count[0] += 1
        if at.call is None or at.call == count[0]:
            row = at.sequence
            if at.side == "prefill":
                row = int(more["cu_seqlens_q"][at.sequence + 1]) - 1
            own = (out, (row, at.head, at.column)) if at.part == "o" else (lse, (row, at.head))
            own[0][own[1]] = other(*args, **more)[["o", "lse"].index(at.part)][own[1]]
        return out, lse

    base = pair()
    return replace(base, **{at.side: by_keywords(spoilt)})


def one_ulp(side):
    def call(*args, **more):
        found = side(*args, how=How(), **more)
        return tuple(torch.nextafter(x, torch.tensor(torch.inf)) for x in found)

    return call


def wide(side):
    return lambda *args, **more: side(*args, how=How(wide=True), **more)


DRAWN = PLACES | {
    "lse": At(part="lse"),
    "lse-of-the-last-head": At(part="lse", head=3),
    "lse-of-the-second-sequence": At(part="lse", sequence=1),
    "first-call": At(call=1),
    "last-call": At(call=3),
}


@pytest.mark.parametrize("place", DRAWN)
def test_one_result_of_random_calls_that_differs_is_told(place):
    at = DRAWN[place]
    which = subject(wrong(at, one_ulp(SIDES[at.side])), heads=(4, 2, 8))
    found = order_report(which, 5, batch=2, rows=2, draws=3, only=())
    differing = 3 if at.call is None else 1
    assert (found.drawn.calls, found.drawn.equal) == (3, 3 - differing)
    assert found.drawn.differing == differing
    assert found.verdict == "same-order-different-bits"
    assert found.reason == f"{differing} of 3 random calls differ, in {differing} of 216 values"


@pytest.mark.parametrize("place", PLACES)
def test_one_result_that_is_not_of_the_order_is_told_by_the_replay(place):
    """Kept in float64, one column of one head answers every probe as the others do."""
    at = PLACES[place]
    which = subject(wrong(at, wide(SIDES[at.side])), heads=(4, 2, 8))
    found = order_report(which, 40, batch=2, rows=2, draws=1, only=KEYS)
    assert found.verdict == "not-a-tree"
    assert f"gives 63 of 64 of {at.side}'s results" in found.reason


def test_every_random_call_has_other_data():
    seen = []
    base = pair()

    def spy(call):
        seen.append(tuple(call.q.flatten().tolist()))
        return base.decode(call)

    order_report(subject(replace(base, decode=spy)), 5, draws=4, only=())
    assert len(set(seen)) == 4

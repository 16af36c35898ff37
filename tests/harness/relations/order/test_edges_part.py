"""What becomes of edges and divisions of two sides, and of a part that cannot be found out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from order_sides import EDGES, ORDER, N, sides
from test_rescale import Blocks

from kvparity.relations.order import NotATree, NotMeasured, Part, ProbeLied
from kvparity.relations.order import parts as rooms
from kvparity.relations.order.division import Division
from kvparity.relations.order.parts import division_part, edges_part, tried
from kvparity.relations.order.rescale import Edges

# edges

OTHER = Edges((16,), (16,))
MORE = Edges((8, 16, 32), (16, 32))


@pytest.mark.parametrize(
    ("decode", "prefill", "order", "status", "seen", "cost"),
    [
        (None, None, None, "same", "", "recover decode,certify prefill"),
        (None, None, ORDER, "same", "", "try decode,certify prefill"),
        (OTHER, OTHER, None, "same", "", "recover decode,certify prefill"),
        (OTHER, OTHER, ORDER, "undeclared",
         "the declared order has edges ascending at 16, 32; descending at 16, 32",
         "try decode,recover decode,certify prefill"),
        (OTHER, None, None, "different", "prefill closes a block between keys 16 and 35, ascending",
         "recover decode,certify prefill,recover prefill"),
        (None, MORE, ORDER, "different", "prefill closes a block between keys 0 and 15, ascending",
         "try decode,certify prefill,try prefill,recover prefill"),
        (OTHER, None, ORDER, "different", "prefill closes a block between keys 16 and 35, ascend",
         "try decode,recover decode,certify prefill,try prefill"),
    ],
)  # fmt: skip
def test_edges_are_found_on_decode_and_certified_on_prefill(
    monkeypatch, decode, prefill, order, status, seen, cost
):
    monkeypatch.setattr(rooms, "RescaleEdges", lambda side: blocks(side))
    mine, other = sides({}, {}, order)
    mine.edges, other.edges = (each or EDGES for each in (decode, prefill))
    found = edges_part(mine, other)
    assert (found.name, found.status) == ("rescale edges", status)
    assert found.seen.startswith(seen)
    assert bool(found.seen) == bool(seen)
    assert ",".join(found.cost) == cost
    assert (found.decode == found.prefill) == (mine.edges == other.edges)


def blocks(side) -> Blocks:
    found = Blocks(N, side.edges)
    found.side.which = side.which
    return found


def test_edges_that_change_from_call_to_call_are_no_tree(monkeypatch):
    """Prefill's certificate sees an edge more; recovered, it is gone."""
    made: list[str] = []

    def probes(side):
        made.append(side.which)
        edges = MORE if made == ["decode", "prefill"] else side.edges
        return blocks(SimpleNamespace(which=side.which, edges=edges))

    monkeypatch.setattr(rooms, "RescaleEdges", probes)
    with pytest.raises(NotATree, match="prefill answers differently from call to call"):
        edges_part(*sides({}, {}))


@pytest.mark.parametrize(
    ("up", "first", "words"),
    [
        ((), 0, "none seen"),
        ((4,), 0, "at 4"),
        ((4, 8), 0, "at 4, 8"),
        ((4, 8, 12), 0, "every 4 keys to 12"),
        ((4, 8, 16), 0, "at 4, 8, 16"),
        ((3, 7, 11), 0, "at 3, 7, 11"),
        ((3, 7, 11), 1, "every 4 keys to 12"),
        ((4, 8, 12), 2, "at 6, 10, 14"),
        (tuple(range(3, 19, 2)), 0, "at 3, 5, 7, 9, 11, 13, 15, 17"),
        (tuple(range(3, 21, 2)), 0, "at 3, 5, 7, 9, 11, 13, 15, 17, …"),
    ],
)
def test_edges_in_words_count_from_the_first_key_of_the_sequence(monkeypatch, up, first, words):
    monkeypatch.setattr(rooms, "RescaleEdges", lambda side: blocks(side))
    same = {"edges": Edges(up, ()), "first": first}
    found = edges_part(*sides(same, same))
    assert found.decode == f"ascending {words}; descending none seen"
    other = edges_part(*sides(same, {"edges": Edges((), (4,)), "first": first}))
    assert other.prefill == f"ascending none seen; descending at {4 + first}"


# division, and what a failure is


@pytest.mark.parametrize(
    ("forms", "last", "status"),
    [
        (("divides", "divides"), 1.0, "same"),
        (("divides", "divides"), 1.5, "different"),
        (("divides", "reciprocal"), 1.0, "different"),
        (("other", "divides"), 1.0, "different"),
        (("unclear", "other"), 1.0, "different"),
        (("divides", "unclear"), 1.0, "different"),
        (("other", "other"), 1.0, "same"),
        (("unclear", "unclear"), 1.0, "not-measured"),
        (("unclear", "unclear"), 1.5, "not-measured"),
    ],
)
def test_divisions_are_the_same_in_form_and_bits(monkeypatch, forms, last, status):
    found = dict(zip(("decode", "prefill"), forms, strict=True))
    bits = {"decode": torch.ones(2, 3), "prefill": torch.tensor([[1.0, 1, 1], [1, 1, last]])}
    monkeypatch.setattr(
        rooms, "division", lambda side: Division(found[side.which], bits[side.which])
    )
    part = tried("division", lambda: division_part(*sides({}, {})))
    assert (part.name, part.status) == ("division", status)
    if status == "different":
        lines = part.decode, part.prefill
        assert (lines[0] == lines[1]) == (forms[0] == forms[1])
        unlike = int(last != 1)
        assert part.seen == (
            f"decode: {lines[0]}, prefill: {lines[1]}; {unlike} of 6 quotients differ"
        )
    else:
        assert bool(part.seen) == (status == "not-measured")


@pytest.mark.parametrize(
    ("error", "status"),
    [(NotATree, "not-a-tree"), (ProbeLied, "not-measured"), (NotMeasured, "not-measured")],
)
def test_a_failure_is_a_status_with_its_reason(error, status):
    def fail() -> Part:
        raise error("why")

    found = tried("products", fail)
    assert (found.name, found.status, found.seen) == ("products", status, "why")
    with pytest.raises(ZeroDivisionError):
        tried("products", lambda: Part(str(1 // 0), "same"))

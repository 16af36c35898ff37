"""What was written, by whom it is read, and what a listener makes of what it is told: by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor
from toy_cache import ReusableToyCache

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span
from kvparity.relations.trace.collector import Collector
from kvparity.relations.trace.contents import Contents
from kvparity.relations.trace.facts import Facts
from kvparity.subjects.events import Attended, Wrote

PLAIN = Facts(None)


def rows(*numbers: int) -> Tensor:
    """Keys or values ``[n, 1, 2]`` that are told apart by their numbers."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 1, 2).clone()


def held(contents: Contents, sequence: int, first: int, *numbers: int, **more: Any) -> Any:
    """By stored layer: where these keys and values are those written there."""
    k, v = rows(*numbers), -rows(*numbers)
    args: dict[str, Any] = {"dtype": torch.float32, "facts": PLAIN} | more
    found = contents.matching(sequence, first, k, v, **args)
    return {layer: same.tolist() for layer, same in found.items()}


def written(*writes: tuple[int, int, int, list[int]]) -> Contents:
    """(layer, sequence, start, numbers) in this order."""
    contents = Contents()
    for layer, sequence, start, numbers in writes:
        contents.write(layer, sequence, start, rows(*numbers), -rows(*numbers))
    return contents


YES, NO = True, False
READS: dict[str, tuple[tuple[int, ...], list[bool]]] = {
    # written: 1 2 3 at the positions 0 to 2, then 4 5 6 at 2 to 4
    "all": ((0, 1, 2, 4, 5, 6), [YES] * 5),
    "what was there before": ((0, 1, 2, 3, 5, 6), [YES, YES, NO, YES, YES]),
    "one place on": ((1, 1, 2, 4, 5, 6), [NO] * 5),
    "from the second": ((1, 2, 4, 5, 6), [YES] * 4),
    "one more than was written": ((0, 1, 2, 4, 5, 6, 7), [YES] * 5 + [NO]),
    "behind all": ((5, 6, 0), [NO, NO]),
    "just behind": ((6, 0), [NO]),
    "before the first": ((-1, 9, 1, 2), [NO, YES, YES]),
    "one that is another": ((0, 1, 9, 4), [YES, NO, YES]),
    "no key": ((3,), []),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_what_was_written_there_last(name: str) -> None:
    (first, *numbers), same = READS[name]
    contents = written((0, 0, 0, [1, 2, 3]), (0, 0, 2, [4, 5, 6]))
    assert held(contents, 0, first, *numbers) == {0: same}
    assert held(contents, 0, first, *numbers) == {0: same}  # nothing is used up


def test_a_gap_is_not_known_and_a_zero_in_it_is_no_match() -> None:
    contents = written((0, 0, 3, [4]))
    assert held(contents, 0, 0, 0, 0, 0, 4) == {0: [NO, NO, NO, YES]}


def test_each_layer_and_sequence_has_its_own() -> None:
    contents = written((2, 1, 0, [1]), (0, 1, 0, [2]), (1, 0, 0, [3]))
    assert contents.layers() == [0, 1, 2]
    assert held(contents, 0, 0, 3) == {0: [NO], 1: [YES], 2: [NO]}
    assert held(contents, 1, 0, 1) == {0: [NO], 1: [NO], 2: [YES]}
    k, v = rows(3), rows(3)  # values count as well as keys
    found = contents.matching(0, 0, k, v, torch.float32, PLAIN)
    assert not bool(found[1].any())


@pytest.mark.parametrize("read_before", [False, True])
def test_the_first_tokens_are_taken_over_and_no_other(read_before: bool) -> None:
    contents = written((0, 0, 0, [1, 2]), (0, 0, 2, [3, 4, 5, 6]), (1, 2, 0, [7]))
    if read_before:
        assert held(contents, 0, 0, 1, 2, 3) == {0: [YES] * 3, 1: [NO] * 3}
    contents.adopt(1, 0, 3)
    assert held(contents, 1, 0, 1, 2, 3, 4, 5)[0] == [YES, YES, YES, NO, NO]
    contents.write(0, 1, 3, rows(9), -rows(9))  # each writes on for itself
    assert held(contents, 1, 0, 1, 2, 3, 9)[0] == [YES] * 4
    assert held(contents, 0, 0, 1, 2, 3, 4, 5, 6)[0] == [YES] * 6


class Halving(ReusableToyCache):
    """Its readers get half of what was stored."""

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k / 2, v / 2


def test_what_is_read_is_held_against_its_round_trip() -> None:
    facts = Facts(Halving([Member("a", 3, 1)], 0, frozenset(), window=2))
    assert held(written((0, 0, 0, [2, 4])), 0, 0, 1, 2, facts=facts) == {0: [YES, YES]}
    assert held(written((0, 0, 0, [2, 4])), 0, 0, 2, 4, facts=facts) == {0: [NO, NO]}
    # Of a plain cache only the format of what is read is known.
    third = Contents()
    third.write(0, 0, 0, rows(1) / 3, rows(1) / 3)
    narrow = (rows(1) / 3).bfloat16()
    assert third.matching(0, 0, narrow, narrow, torch.float32, PLAIN)[0].tolist() == [YES]
    assert [facts.keys(0, place) for place in (0, 1, 5)] == [1, 2, 2]
    assert (facts.window(0), facts.owner(3)) == (2, 0)
    assert (PLAIN.keys(0, 5), PLAIN.window(0), PLAIN.owner(3)) == (6, None, 3)


# what a listener makes of it

MEMBERS = (Member("a", 5, 2), Member("stranger", 4, 1), Member("donor", 5, 2))
STEPS = (
    (Span(0, 0, 3, 1, rows_to=2), Span(1, 0, 3, 1)),
    (Span(0, 3, 4, 3, decode=True),),
)


def plan(*actions: Action) -> Plan:
    return Plan(MEMBERS, STEPS, Layout(), actions=actions)


def listening(*actions: Action, order: tuple[int, int] | None = None) -> Collector:
    return Collector(plan(*actions), 1, PLAIN, order)


def attended(place: int, numbers: tuple[int, ...], **more: Any) -> Attended:
    """A row of one head; its numbers are those of its keys."""
    k, v = rows(*numbers), -rows(*numbers)
    zero = torch.zeros(1, 2)
    whole: dict[str, Any] = {
        "layer": 0, "sequence": 0, "position": place, "told": None, "length": place + 1,
        "first": 0, "q": zero, "k": k, "v": v, "out": zero, "lse": None, "scale": 1.0,
    }  # fmt: skip
    return Attended(**whole | more)


def step(collector: Collector) -> None:
    collector.stepped(cast(Any, None), (), ())


def test_rows_are_wanted_by_their_place_from_the_end_whatever_they_claim() -> None:
    collector = listening()
    assert collector.wants(0, [7, 8, 9]) == (8, 9)  # the row 1, and the last
    assert collector.wants(1, [0, 1, 2]) == ()
    assert collector.wants(0, [4]) == (4,)  # fewer positions than the span has
    step(collector)
    assert collector.wants(0, [3]) == (3,)


READ: dict[str, tuple[tuple[int, ...], int, tuple[tuple[int, ...], int, int | None]]] = {
    # keys, from which position on: donors, how many are strange, and where the first of them is
    "as written": ((1, 2, 3), 0, ((0, 1), 0, None)),
    "one of another layer": ((1, 2, 4), 0, ((), 1, 2)),
    "one of no layer": ((1, 9, 3), 0, ((), 1, 1)),
    "all from one on": ((2, 3), 1, ((0, 1), 0, None)),
    "from one on and one strange": ((2, 9), 1, ((), 1, 2)),
    "two are strange": ((9, 9, 3), 0, ((), 2, 0)),
    "no key": ((), 0, ((), 0, None)),
}


@pytest.mark.parametrize("name", READ)
def test_whose_keys_a_row_was_given_is_found_by_their_bits(name: str) -> None:
    numbers, first, wanted = READ[name]
    collector = listening()
    for layer in (0, 1):
        collector.wrote(Wrote(layer, 0, 0, rows(1, 2, 3), -rows(1, 2, 3)))
    collector.attended(attended(1, numbers, first=first, length=7, decode=True))
    (line,) = collector.lines()
    (seen,) = line.layers
    assert (seen.donors, seen.strange, seen.strange_at) == wanted
    assert (seen.keys, seen.first, seen.length, seen.decode) == (len(numbers), first, 7, True)
    assert (line.step, line.name, line.life, line.place) == (0, "a", 0, 1)


def test_of_a_layer_that_nobody_wrote_every_key_is_strange() -> None:
    collector = listening()
    collector.attended(attended(1, (1, 2), layer=3))
    (seen,) = collector.lines()[0].layers
    assert (seen.donors, seen.strange, seen.strange_at) == ((), 2, 0)


def test_what_strangers_write_and_attend_is_nobodys_and_what_donors_write_is_read() -> None:
    collector = listening(Action(1, "adopt", 0, 2, 2))
    collector.wrote(Wrote(0, 1, 0, rows(7), -rows(7)))
    assert collector.contents.layers() == []
    collector.wrote(Wrote(0, 2, 0, rows(1, 2, 3), -rows(1, 2, 3)))
    collector.attended(attended(0, (7,), sequence=1))
    assert collector.lines() == ()
    step(collector)
    collector.acted(Action(1, "adopt", 0, 2, 2))
    assert held(collector.contents, 0, 0, 1, 2, 3) == {0: [YES, YES, NO]}


def test_after_a_reset_nothing_is_known_and_another_life_begins() -> None:
    collector = listening(Action(1, "reset"))
    collector.wrote(Wrote(0, 0, 0, rows(1, 2), -rows(1, 2)))
    collector.attended(attended(1, (1, 2)))
    collector.attended(attended(2, (1, 2)))
    step(collector)
    collector.acted(Action(1, "reset"))
    collector.attended(attended(3, (1, 2)))
    assert [line.life for line in collector.lines()] == [0, 0, 1]
    assert [line.layers[0].strange for line in collector.lines()] == [0, 0, 2]


def told(*places: int, layers: int = 1, later: bool = True, end: bool = True) -> Collector:
    """A collector that was told of rows by their order, the last one in the second step."""
    collector = listening()
    for number, place in enumerate(places):
        if number == 2 and later:
            step(collector)
        for layer in reversed(range(layers)):
            collector.attended(attended(place, (1,), layer=layer))
    if later and end:
        step(collector)
    return collector


def test_what_nobody_told_of_is_missing() -> None:
    nothing = "the subject reported no row: it does not say what its layers attend to"
    assert told().missing() == nothing
    gone = "layer 0 reported no row at position {} of a (step {})"
    step(first := told(1, later=False))
    assert first.missing() == gone.format(2, 0)
    two = told(1, 2)
    step(two)
    assert two.missing() == gone.format(3, 1)
    assert told(1, 2, 3).missing() is None
    assert told(1, 2, 3, layers=2).missing() is None
    one_layer = told(1, 2, 3, end=False)
    one_layer.attended(attended(1, (1,), layer=1))
    assert one_layer.missing() == "layer 1 reported no row at position 2 of a (step 0)"
    more = told(1, 2, 3, 4, 5)
    assert more.missing() == "the subject reported 2 rows more than the schedule has"
    assert len(more.lines()) == 3


def test_lines_are_in_order_and_their_layers_too() -> None:
    found = told(1, 2, 3, layers=3).lines()
    assert [(line.step, line.place) for line in found] == [(0, 1), (0, 2), (1, 3)]
    assert [[seen.layer for seen in line.layers] for line in found] == [[0, 1, 2]] * 3

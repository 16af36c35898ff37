"""What two caches are said to hold, against loops over one number at a time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import records
import torch
from torch import Tensor

from kvparity.plan.schedule import Member, Plan
from kvparity.record.cache_snapshot import CachePlace, CacheSnapshot
from kvparity.relations.cache.compare import compare

LAYERS = 2
ROWS = sum(member.length for member in records.MEMBERS)
MASKS = ("is_held", "is_written", "needed")


def held(plan: Plan = records.PREFILL) -> CacheSnapshot:
    """All is held, as written."""
    lengths = [member.length for member in plan.members]
    rows = sum(lengths)
    digests = torch.arange(LAYERS * rows * 2).reshape(LAYERS, rows, 2)
    every = torch.ones(LAYERS, rows, dtype=torch.bool)
    return CacheSnapshot(
        record=records.record(plan),
        starts=tuple(sum(lengths[:i]) for i in range(len(lengths))),
        held=digests.clone(),
        written=digests.clone(),
        is_held=every.clone(),
        is_written=every.clone(),
        needed=every.clone(),
        values={},
    )


def place_of(row: int) -> tuple[str, int]:
    first = records.MEMBERS[0].length
    return ("w/0", row) if row < first else ("w/1", row - first)


def every(test: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """(row, layer) of what a test is true of, by row."""
    return [(row, layer) for row in range(ROWS) for layer in range(LAYERS) if test(layer, row)]


def alone(name: str, one: CacheSnapshot) -> tuple[str, str, int, int] | None:
    """(outcome, reason, tokens, differing tokens) of what is wrong with one side."""
    here = every(lambda layer, row: bool(one.is_held[layer, row]))
    if not here:
        return "void", f"{name} holds nothing at the end", 0, 0
    if not every(lambda layer, row: bool(one.is_written[layer, row])):
        return (
            "void",
            f"{name} does not report what it writes, so there is nothing to compare",
            0,
            0,
        )
    tokens = len({row for row, _ in here})

    def ghost(layer: int, row: int) -> bool:
        return bool(one.is_held[layer, row] and not one.is_written[layer, row])

    def told(found: list[tuple[int, int]], words: str, part: str = "") -> tuple[str, str, int, int]:
        row, layer = found[0]
        member, position = place_of(row)
        place = f"{part}position {position} of {member} in layer {layer}"
        return "differs", words.format(place), tokens, len({row for row, _ in found})

    lost = every(
        lambda layer, row: (
            bool(one.needed[layer, row] and one.is_written[layer, row])
            and not one.is_held[layer, row]
        )
    )
    if lost:
        return told(lost, name + " no longer holds {}, which the next query would see")
    ghosts = every(ghost)
    if ghosts:
        return told(ghosts, name + " holds {}, which nobody wrote")
    off = every(
        lambda layer, row: (
            bool(one.is_held[layer, row])
            and bool((one.held[layer, row] != one.written[layer, row]).any())
        )
    )
    if off:
        row, layer = off[0]
        part = "k" if one.held[layer, row, 0] != one.written[layer, row, 0] else "v"
        return told(off, name + " holds another {} than was written", f"{part} at ")
    return None


def both(reference: CacheSnapshot, candidate: CacheSnapshot) -> tuple[str, str, int, int]:
    for name, one in (("the reference", reference), ("the path", candidate)):
        found = alone(name, one)
        if found is not None:
            return found
    here = every(lambda a, row: bool(reference.is_held[a, row] and candidate.is_held[a, row]))
    if not here:
        return "void", "no position is held by both sides", 0, 0
    tokens = len({row for row, _ in here})
    off = [
        (row, layer) for row, layer in here
        if (reference.held[layer, row] != candidate.held[layer, row]).any()
    ]  # fmt: skip
    if not off:
        words = f"{2 * len(here)} keys and values of {LAYERS} layers are equal, and as written"
        return "holds", words, tokens, 0
    row, layer = off[0]
    part = "k" if reference.held[layer, row, 0] != candidate.held[layer, row, 0] else "v"
    member, position = place_of(row)
    words = f"{part} at position {position} of {member} in layer {layer} differs from what the"
    return "differs", f"{words} reference holds", tokens, len({row for row, _ in off})


def spoilt(one: CacheSnapshot, given: random.Random) -> CacheSnapshot:
    """One thing of a cache, or two or three, otherwise."""
    tensors: dict[str, Tensor] = {
        name: getattr(one, name).clone() for name in ("held", "written", *MASKS)
    }
    for _ in range(given.choice((0, 1, 1, 2, 3))):
        layer, row, part = given.randrange(LAYERS), given.randrange(ROWS), given.randrange(2)
        kind = given.choice(("held", "same", *MASKS, "many"))
        if kind == "held":
            tensors["held"][layer, row, part] += 1
        elif kind == "same":  # as written, and unlike the other side
            tensors["held"][layer, row, part] += 100
            tensors["written"][layer, row, part] += 100
        elif kind == "many":
            rows = slice(row, None)
            tensors["is_held"][:, rows] = tensors["needed"][:, rows] = False
        else:
            tensors[kind][layer, row] = False
    return replace(one, **tensors)


@pytest.mark.parametrize("seed", range(4))
def test_what_two_caches_hold_is_what_loops_find(seed: int) -> None:
    given = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(40):
        reference, candidate = (spoilt(held(p), given) for p in (records.PREFILL, records.DECODE))
        wanted = both(reference, candidate)
        found = compare(reference, candidate)
        told = (found.outcome, found.reason, found.tokens, found.differing_tokens)
        assert told == wanted
        assert found.first_divergence is None
        seen[found.outcome] += 1
        if found.outcome == "differs" and "differs from" not in found.reason:
            assert found.details is not None
            assert found.details.sides == ("written", "read")
            one = candidate if found.reason.startswith("the path") else reference
            held_by_it = len(every(lambda layer, row, one=one: bool(one.is_held[layer, row])))
            assert found.details.compared == 2 * held_by_it
    assert min(seen[word] for word in ("holds", "differs")) > 2


@pytest.mark.parametrize("side", ["reference", "path"])
@pytest.mark.parametrize("mask", ["is_held", "is_written"])
def test_a_side_of_which_nothing_is_known_is_void(side: str, mask: str) -> None:
    less = replace(held(), **{mask: torch.zeros(LAYERS, ROWS, dtype=torch.bool)})
    sides = (less, held(records.DECODE)) if side == "reference" else (held(), less)
    found = compare(*sides)
    assert (found.outcome, found.reason, found.tokens, found.differing_tokens) == both(*sides)
    assert found.outcome == "void"


def test_what_is_held_on_different_sides_is_not_compared() -> None:
    left, right = held(), held(records.DECODE)
    for one, rows in ((left, slice(0, 4)), (right, slice(4, None))):
        one.is_held[:, rows] = one.needed[:, rows] = False
    found = compare(left, right)
    assert (found.outcome, found.reason) == ("void", "no position is held by both sides")


def test_only_the_members_that_both_sides_begin_with_are_compared() -> None:
    a, b, c, other = (Member(name, 4, 1) for name in "abcx")
    plans = [replace(records.PREFILL, members=members) for members in ((a, b, c), (a, other, c))]
    left, right = (held(plan) for plan in plans)
    right = replace(right, record=replace(right.record, observed=Counter({"attention.prefill": 3})))
    right.held[:, 8:] += 1  # of c, which is not compared
    right.written[:, 8:] += 1
    found = compare(left, right)
    assert found.tokens == 4
    assert found.differing_tokens == 0
    right.held[1, 3] += 1
    right.written[1, 3] += 1
    assert compare(left, right).reason.startswith("k at position 3 of a in layer 1 differs")


# the bits that are shown

PLACE = CachePlace(1, 1, 2)
ROW = 7  # of the second member, at 5
NUMBERS = (1.5, -0.0, 3.0, 4.0)


def shown(x: Any, y: Any, *, alone: bool) -> Any:
    """The first divergence of values ``x`` (expected) and ``y`` at one place."""
    left, right = held(), held(records.DECODE)
    right.held[1, ROW, 1] += 1
    if not alone:
        right.written[1, ROW, 1] += 1
    ks = (torch.zeros(2, 2), torch.ones(2, 2))  # of the other part, which is not looked at
    vs = [torch.tensor(each).reshape(2, 2) for each in (x, y)]
    asked: list[tuple[str, CachePlace]] = []

    def again(side: str, place: CachePlace) -> CacheSnapshot:
        asked.append((side, place))
        own = (ks[side == "path"], vs[side == "path"])
        expected = (ks[0], vs[0] if alone else vs[0] + 7)
        return replace(held(), values={place: (own, expected)})

    found = compare(left, right, again)
    assert found.outcome == "differs"
    assert asked == [(s, PLACE) for s in (("path",) if alone else ("reference", "path"))]
    return found.first_divergence


@pytest.mark.parametrize("alone", [True, False], ids=["written", "reference"])
@pytest.mark.parametrize(
    ("column", "other", "ulps"),
    [(0, 1.5000001, 1), (1, 0.0, 0), (3, 5.0, 1 << 21), (2, float("nan"), None)],
)
def test_the_first_number_that_differs_is_shown(
    column: int, other: float, ulps: int | None, alone: bool
) -> None:
    changed = [*NUMBERS]
    changed[column] = other
    changed[3] = 5.0  # and one behind it
    for x, y in ((NUMBERS, changed), (changed, NUMBERS)):
        found = shown(x, y, alone=alone)
        assert (found.sequence, found.position, found.token) == ("w/1", 2, None)
        assert (found.layer, found.part, found.column) == (1, "v", column)
        pair = torch.tensor([x[column], y[column]])
        bits = [f"0x{int(each) & 0xFFFFFFFF:08x}" for each in pair.view(torch.int32)]
        assert [found.reference_bits, found.candidate_bits] == bits
        assert (found.ulps is None) == (ulps is None)
        if ulps:
            assert found.ulps == ulps
        assert found.reference_digest != found.candidate_digest


def test_values_that_are_equal_when_they_are_computed_once_more_are_shown_too() -> None:
    found = shown(NUMBERS, NUMBERS, alone=False)
    assert (found.column, found.ulps) == (0, 0)
    assert found.reference_bits == found.candidate_bits == "0x3fc00000"

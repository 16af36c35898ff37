"""Caches and reading that are wrong in exactly one place: wherever it is, it must be told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import toy
from asking import compare_caches, probe
from grid_toy import HEADS, LAYERS, Gap, Grid, Look, Spot
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_cache import WIDTH

from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CacheSnapshot
from kvparity.record.path_run import PathRun
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.cache.compare import CacheDetails
from kvparity.relations.trace.contents import Contents
from kvparity.relations.trace.facts import Facts
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9,)), 3)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 80, 81, 82], [9, 90, 91, 92]]
HELD = (5, 3)  # positions of each sequence that decoding computes
CHECK = {"name": "live", "relation": "liveness", "paths": ["decode"]}

FIRST = Spot("k", 0, 0, 0, 0, 0)
ONLY = {
    "first": FIRST,
    "values": replace(FIRST, part="v"),
    "last layer": replace(FIRST, layer=LAYERS - 1),
    "last head": replace(FIRST, head=HEADS - 1),
    "second sequence": replace(FIRST, sequence=1),
    "last position": replace(FIRST, position=HELD[0] - 1),
    "last column": replace(FIRST, column=WIDTH - 1),
    "last of all": Spot("v", LAYERS - 1, HEADS - 1, 1, HELD[1] - 1, WIDTH - 1),
}


def side(path: str, spot: Spot | None = None, gap: Gap | None = None) -> PathRun:
    return PathRun(toy.setting(), Grid(spot, gap=gap), PLANS, PathName.parse(path), TOKENS)


@cache
def right(path: str) -> CacheSnapshot:
    return side(path).take_snapshot()


def told_of(found: Comparison, spot: Spot) -> None:
    """The one number is named, and nothing else is."""
    assert found.outcome == "differs"
    place = f"{spot.part} at position {spot.position} of w/{spot.sequence} in layer {spot.layer}"
    assert place in found.reason
    assert found.differing_tokens == 1
    assert found.details is not None
    assert (found.details.differing, found.details.layers) == (1, LAYERS)
    first = found.first_divergence
    assert first is not None
    assert (first.part, first.layer, first.position) == (spot.part, spot.layer, spot.position)
    assert first.column == spot.head * WIDTH + spot.column
    assert first.reference_bits != first.candidate_bits


def test_a_grid_without_a_wrong_number_holds() -> None:
    found = compare_caches(side("prefill"), side("decode"))
    assert found.outcome == "holds", found.reason
    every = 2 * LAYERS * sum(HELD)
    assert found.details == CacheDetails(layers=LAYERS, compared=every, differing=0)


def judged(spot: Spot) -> tuple[Comparison, Comparison]:
    """With the wrong number in the path's cache, and in the reference's."""
    reference, path = side("prefill", spot), side("decode", spot)
    return (
        compare_caches(side("prefill"), path, (right("prefill"), path.take_snapshot())),
        compare_caches(reference, side("decode"), (reference.take_snapshot(), right("decode"))),
    )


@pytest.mark.parametrize("only", ONLY)
@pytest.mark.parametrize("told", [True, False], ids=["computed", "kept"])
def test_one_wrong_number_of_a_cache_is_told(only: str, told: bool) -> None:
    spot = replace(ONLY[only], told=told)
    for found, name in zip(judged(spot), ("the path", "the reference"), strict=True):
        told_of(found, spot)
        against = f"{name} holds another" if not told else "from what the reference holds"
        assert against in found.reason


@settings(max_examples=8, derandomize=True)
@given(st.data())
def test_wherever_one_wrong_number_is_it_is_told(data: st.DataObject) -> None:
    sequence = data.draw(st.integers(0, 1))
    spot = Spot(
        data.draw(st.sampled_from(["k", "v"])),
        *(data.draw(st.integers(0, size - 1)) for size in (LAYERS, HEADS)),
        sequence,
        *(data.draw(st.integers(0, size - 1)) for size in (HELD[sequence], WIDTH)),
        told=data.draw(st.booleans()),
    )
    for found in judged(spot):
        told_of(found, spot)


GAPS = {
    "first layer": Gap("untold", 0, 0, 0),
    "last layer": Gap("untold", LAYERS - 1, 0, 0),
    "second sequence": Gap("untold", 0, 1, 0),
    "decoded position": Gap("untold", 0, 0, 4),
    "first layer lost": Gap("lost", 0, 0, HELD[0] - 1),
    "last layer lost": Gap("lost", LAYERS - 1, 0, HELD[0] - 1),
    "second sequence lost": Gap("lost", 0, 1, HELD[1] - 1),
}


@pytest.mark.parametrize("only", GAPS)
def test_one_position_of_a_cache_that_nobody_wrote_or_that_is_gone_is_told(only: str) -> None:
    gap = GAPS[only]
    candidate = side("decode", gap=gap)
    found = compare_caches(
        side("prefill"), candidate, (right("prefill"), candidate.take_snapshot())
    )
    assert found.outcome == "differs"
    place = f"position {gap.position} of w/{gap.sequence} in layer {gap.layer}"
    told = {
        "untold": f"the path holds {place}, which nobody wrote",
        "lost": f"the path no longer holds {place}, which the next query would see",
    }
    assert found.reason == told[gap.kind]
    assert found.differing_tokens == 1


def test_what_only_one_side_holds_is_counted_by_any_layer() -> None:
    """A position that one layer holds on both sides is compared, though another holds it on one."""
    less = right("prefill")
    less = replace(less, is_held=less.is_held.clone(), needed=torch.zeros_like(less.needed))
    less.is_held[1:] = False
    found = compare_caches(side("prefill"), side("decode"), (less, right("decode")))
    assert (found.outcome, found.tokens) == ("holds", sum(HELD))
    assert found.details == CacheDetails(layers=LAYERS, compared=2 * sum(HELD), differing=0)
    less.is_held[0, : HELD[0]] = False
    less.is_held[0, HELD[0] + 1 :] = False
    found = compare_caches(side("prefill"), side("decode"), (less, right("decode")))
    # The one position left is the last of the first sequence, which decoding never computes.
    assert (found.outcome, found.reason) == ("void", "no position is held by both sides")


def test_caches_of_other_layers_are_not_compared() -> None:
    thin = PathRun(toy.setting(), toy.Toy(), PLANS, PathName("decode"), TOKENS)
    found = compare_caches(side("prefill"), thin)
    assert found.outcome == "void"
    assert found.reason == f"the two sides hold {LAYERS} against 1 storing layers"


LOOKS = {
    "first layer and head": Look(0, 0, "deaf"),
    "last layer": Look(LAYERS - 1, 0, "deaf"),
    "last head": Look(0, HEADS - 1, "deaf"),
    "last cached key": Look(0, 0, "deaf", at=3),
    "a hidden key that weighs": Look(1, 2, "weighs", at=-1),
    "a hidden value that is added": Look(2, 1, "adds", at=-1),
}


def live(look: Look | None, window: int | None) -> Comparison:
    subject = Grid(look=look, window=window)
    prompts = replace(PROMPTS, ids=("w/0",), prompts=PROMPTS.prompts[:1])
    one = PathRun(
        toy.setting(checks=[CHECK]), subject, PLANS.over(prompts), PathName("decode"), TOKENS[:1]
    )
    return probe(one).found


@pytest.mark.parametrize("window", [None, 3])
def test_a_grid_that_sees_what_it_should_is_alive(window: int | None) -> None:
    found = live(None, window)
    assert found.outcome == "holds", found.reason
    assert found.tokens == 4 * LAYERS * HEADS  # every key before row 4, of every head


@pytest.mark.parametrize("only", LOOKS)
def test_one_head_that_looks_elsewhere_is_told(only: str) -> None:
    look = LOOKS[only]
    found = live(look, 3 if look.at < 0 else None)
    assert found.outcome == "differs"
    assert found.details is not None
    told, other = "dead", "wrongly_alive"
    if look.at < 0:
        told, other = other, told
    (place,) = getattr(found.details, told)
    assert getattr(found.details, other) == ()
    assert found.details.unseen_layers == ()
    position = look.at if look.at >= 0 else 1  # row 4 sees 2, 3 and its own key
    assert (place.layer, place.head, place.position) == (look.layer, look.head, position)


@pytest.mark.parametrize("part", ["k", "v"])
def test_a_trace_tells_which_position_was_written_otherwise(part: str) -> None:
    kv = torch.arange(2 * 3 * HEADS * WIDTH).reshape(2, 3, HEADS, WIDTH).float()
    contents, read = Contents(), kv.clone()
    contents.write(0, 0, 0, kv[0], kv[1])
    read["kv".index(part), 2, HEADS - 1, WIDTH - 1] += 1
    facts = Facts(None)
    same = contents.matching(0, 0, kv[0], kv[1], torch.float32, facts)
    assert same[0].tolist() == [True, True, True]
    found = contents.matching(0, 0, read[0], read[1], torch.float32, facts)
    assert found[0].tolist() == [True, True, False]

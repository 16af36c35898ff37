"""Sides that cannot be cut alike are unknown, never the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audit_cases import pair

from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.flow import Skeleton
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.views import AuditSide

WALK = {"K chains", "before the loop", "loop", "merge", "finish"}


@pytest.fixture
def both(sides: dict[Request, AuditSide]) -> tuple[AuditSide, AuditSide]:
    prefill, decode = pair("sm_90")
    return sides[prefill], sides[decode]


def unknown(found: KernelComparison) -> set[str]:
    assert found.verdict == "unknown"
    return {each.name for each in found.fields if each.verdict == "unknown"}


def test_a_walk_that_is_a_loop_on_one_side_only(both: tuple[AuditSide, AuditSide]) -> None:
    prefill, decode = both
    straight = replace(decode, walk=replace(decode.walk, loops=False))
    found = compare(prefill, straight)
    assert unknown(found) == WALK
    assert "only prefill has a loop" in found.deciding[0].note


def test_no_chain_to_be_seen(both: tuple[AuditSide, AuditSide]) -> None:
    prefill, decode = both
    blind = replace(decode, walk=replace(decode.walk, chains=()))
    assert unknown(compare(prefill, blind)) == WALK


def test_another_kind_of_instruction(both: tuple[AuditSide, AuditSide]) -> None:
    prefill, decode = both
    other = replace(decode.walk, instructions=("mma.m16n8k16.f32.bf16.bf16.f32",), loop=Skeleton())
    found = compare(prefill, replace(decode, walk=other))
    assert unknown(found) == {"matrix instruction", "loop"}


def test_a_difference_outranks_what_is_unknown(both: tuple[AuditSide, AuditSide]) -> None:
    prefill, decode = both
    other = replace(decode.walk, instructions=("mma.x",), atomics=1)
    found = compare(prefill, replace(decode, walk=other))
    assert found.verdict == "different"
    assert [each.name for each in found.deciding] == ["atomics"]
    assert "does not prove other bits" in found.meaning


def test_forbidden_things_differ_even_if_both_sides_have_them(
    both: tuple[AuditSide, AuditSide],
) -> None:
    twice = [replace(side, walk=replace(side.walk, atomics=1)) for side in both]
    assert compare(*twice).verdict == "different"


def test_more_in_a_merge_is_unknown_where_the_walks_differ(
    sides: dict[Request, AuditSide], both: tuple[AuditSide, AuditSide]
) -> None:
    """On sm_100 prefill's walk ends behind its loop, where it merges."""
    prefill, decode = (sides[request] for request in pair("sm_100"))
    merge = {each.name: each for each in compare(prefill, decode).fields}["merge"]
    assert merge.verdict == "same"
    unlike = replace(decode, walk=replace(decode.walk, loop=both[0].walk.loop, after=Skeleton()))
    fields = {each.name: each for each in compare(prefill, unlike).fields}
    assert (fields["loop"].verdict, fields["merge"].verdict) == ("different", "unknown")
    alike = replace(decode, walk=replace(decode.walk, after=Skeleton()))
    fields = {each.name: each for each in compare(prefill, alike).fields}
    assert (fields["loop"].verdict, fields["merge"].verdict) == ("same", "different")


def test_a_split_of_one_tile_is_known_by_its_values(both: tuple[AuditSide, AuditSide]) -> None:
    """As if the compiler had unrolled the walk into the loop that merges."""
    prefill, decode = both
    assert decode.merge is not None
    parts = prefill.walk.parts
    woven = replace(
        prefill.walk,
        around=False,
        loop=Skeleton(tuple(sorted({*prefill.walk.loop.nodes, *prefill.walk.after.nodes}))),
        after=prefill.walk.finish,
        parts=replace(parts, loop=(*parts.loop, *parts.after), after=parts.finish),
    )
    straight = replace(decode.walk, loops=False, before=decode.walk.loop, loop=Skeleton())
    left, right = replace(prefill, walk=woven), replace(decode, walk=straight)
    found = compare(left, right)
    assert {each.name for each in found.fields if each.verdict != "same"} <= {"merge"}
    # What decode computes and prefill does not is unknown, since it may be the weaving.
    more = Skeleton(tuple(sorted({*decode.walk.loop.nodes, *decode.merge.after.nodes})))
    found = compare(left, replace(right, walk=replace(straight, before=more)))
    assert "loop" in unknown(found)

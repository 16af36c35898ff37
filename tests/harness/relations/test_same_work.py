"""When equal bits show nothing: both sides did the same, or one did not do what its path asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from records import DECODE, INDEX, MEMBERS, NOTHING, PREFILL, changed, record

from kvparity.plan.schedule import Layout, Member, Plan, Span
from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import (
    invariance,
    measures,
    other_work,
    same_bits,
    same_work,
)

SPLIT = replace(
    PREFILL,
    schedule=(
        (Span(0, 0, 3, 1, rows_to=3),), (Span(0, 3, 5, 3, rows_to=4),),
        (Span(1, 0, 4, 1, rows_to=3),),
    ),
)  # fmt: skip
PAGED = replace(PREFILL, layout=Layout(page=16))
RENAMED = replace(PREFILL, members=(Member("x/0", 5, 2), MEMBERS[1]))
GENERATED = replace(PREFILL, generate=True)
"""Draws three and two tokens; of each sequence the first comes of its prompt's prefill."""
MIXED = replace(
    DECODE,
    schedule=(
        (Span(0, 0, 4, 1),),
        (Span(0, 4, 5, 4, decode=True), Span(1, 0, 4, 1)),
    ),
)
EXPORTED = replace(DECODE, layout=Layout(program="exported"))
EQUAL, OTHER = {"k": 4, "m": 1}, {"k": 5, "m": 1}

STEPS = "both sides ran the same steps"
LAUNCHES = "both sides launched the same kernels equally often, for 3 steps and 2"
PAIRS: dict[str, tuple[Record, Record, str | None]] = {
    "the same plan": (record(), record(), STEPS),
    "other steps": (record(SPLIT), record(), None),
    "another cache": (record(PAGED), record(), None),
    "other members": (record(RENAMED), record(), None),
    "one side is generated": (record(GENERATED, observed={"a.decode": 3}), record(), None),
    "the path is generated": (record(), record(GENERATED, observed={"a.decode": 3}), None),
    "both are generated": (
        record(GENERATED, observed={"a.decode": 3}), record(GENERATED, observed={"a.decode": 3}),
        None,
    ),
    "equal launches of other steps": (
        record(SPLIT, launched=EQUAL), record(launched=EQUAL), LAUNCHES,
    ),
    "other launches of other steps": (record(SPLIT, launched=EQUAL), record(launched=OTHER), None),
    "no launches of other steps": (record(SPLIT, launched={}), record(launched={}), None),
    "equal launches of as many steps": (
        record(PAGED, launched=EQUAL), record(launched=EQUAL), None,
    ),
    "the reference did not decode": (
        record(DECODE, observed={"a.prefill": 2}), record(),
        "the reference asks for single-query decode, but no decode was observed",
    ),
    "the path did not decode": (
        record(), record(DECODE, observed={"a.prefill": 2}),
        "the path asks for single-query decode, but no decode was observed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_what_both_sides_did_is_two_works_or_is_told(name: str) -> None:
    first, second, words = PAIRS[name]
    assert same_work(first, second) == words
    found = invariance(first, second, column=0)
    assert (found.outcome, found.reason) == (
        ("holds", "every bit is equal") if words is None else ("void", words)
    )


FEWER = "the path asks for {} decode steps, but only {} were observed"
RAN: dict[str, tuple[Plan, dict[str, int], str | None]] = {
    "as many as asked": (DECODE, {"a.decode": 2, "a.prefill": 2}, None),
    "more than asked, by the layers": (DECODE, {"a.decode": 24}, None),
    "one fewer": (DECODE, {"a.decode": 1}, FEWER.format(2, 1)),
    "one fewer by one of two counts": (DECODE, {"a.decode": 9, "b.decode": 1}, FEWER.format(2, 1)),
    "none": (DECODE, {"a.decode": 0}, "the path asks for single-query decode, but no decode was "
             "observed"),
    "a step that also prefills": (MIXED, {"a.decode": 1, "a.prefill": 2}, None),
    "no decode in a step that also prefills": (
        MIXED, {"a.prefill": 3}, "the path asks for single-query decode, but no decode was observed"
    ),
    "a loop of its own": (GENERATED, {"a.decode": 3}, None),
    "one fewer in a loop of its own": (GENERATED, {"a.decode": 2}, FEWER.format(3, 2)),
    "prefill": (PREFILL, {"a.prefill": 2}, None),
    "prefill that is never counted": (PREFILL, {}, None),
    "prefill with a count of no decode": (PREFILL, {"a.decode": 0}, None),
    "prefill that decodes": (
        PREFILL, {"a.decode": 0, "b.decode": 1},
        "the path asks for prefill only, but decode was observed",
    ),
    "a program": (EXPORTED, {"a.decode": 2, "program.decode": 2}, None),
    "no program": (
        EXPORTED, {"a.decode": 2},
        "the path asks for its exported program, but none was observed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RAN)
def test_what_a_path_asks_for_was_observed_or_is_told(name: str) -> None:
    plan, observed, words = RAN[name]
    assert other_work("path", record(plan, observed=observed)) == words


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)])
def test_where_a_side_has_no_token_none_was_compared(which: tuple[int, ...]) -> None:
    nothing = record(**{**NOTHING, "targets": [], "digests": []})
    pair = [nothing if side in which else record() for side in (0, 1)]
    found = invariance(*pair, column=0)
    assert (found.outcome, found.reason) == ("void", "no token was compared")
    assert (found.tokens, found.differing_tokens, found.differing_rows) == (0, 0, 0)
    assert measures(found) == {}


def test_lengths_and_widths_that_differ_are_told() -> None:
    short = record(index=INDEX[:4], values=changed(0, 0, -1.0)[:4], targets=(10, 11, 12, 20),
                   digests=(1, 2, 3, -4))  # fmt: skip
    found = invariance(record(), short, column=0)
    assert (found.outcome, found.reason) == (
        "void", "the two sides differ in length: 5 against 4 tokens",
    )  # fmt: skip
    narrow = record(DECODE, values=changed(0, 0, -1.0)[:, :1])
    found = invariance(record(), narrow, column=0)
    assert (found.outcome, found.reason) == ("void", "rows of 2 against rows of 1 values")
    assert not same_bits(record(), short)


def test_bits_that_differ_are_told_before_a_row_that_is_nobodys() -> None:
    other = replace(record(DECODE, values=changed(3, 0, -9.0)), faults=("a row beside them",))
    found = invariance(record(), other, column=0)
    assert (found.outcome, found.reason) == ("differs", "bits differ")
    assert found.first_divergence is not None
    assert set(measures(found)) == {"max_abs_dlogp", "approx_kl0", "clipfrac0"}
    assert measures(found)["max_abs_dlogp"] == 6.0


@pytest.mark.parametrize("side", [0, 1])
def test_of_a_row_the_column_is_told_that_is_no_number_on_one_side(side: int) -> None:
    pair = [record(), record(DECODE, values=changed(1, 0, -9.0))]
    odd = pair[side].values.clone()
    odd[1, 1] = torch.nan
    pair[side] = record(pair[side].plan, values=odd)
    first = invariance(*pair, column=None).first_divergence
    assert first is not None
    assert (first.column, first.ulps) == (1, None)

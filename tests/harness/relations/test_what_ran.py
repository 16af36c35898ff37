"""What really ran decides: sides that show nothing, however equal their bits are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import DECODE, INDEX, MEMBERS, NOTHING, PREFILL, VALUES, changed, record

from kvparity.plan.schedule import Layout, Member, Plan, Program, Span
from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import invariance

THREE = replace(DECODE, schedule=(*DECODE.schedule, (Span(0, 4, 5, 4, decode=True),)))
LOOP = Plan(MEMBERS, (), Layout(), generate=True)
"""Of 5 and 4 tokens behind prompts of 2: the first of each comes with the prompt."""
PROGRAMS: tuple[Program, ...] = ("exported", "compiled")

VOID: dict[str, tuple[Record, Record, str]] = {
    "no tokens": (record(**NOTHING), record(DECODE, **NOTHING), "no token was compared"),
    "no tokens on one side": (record(), record(DECODE, **NOTHING), "no token was compared"),
    "unequal lengths": (
        record(),
        record(
            DECODE,
            index=INDEX[:4],
            values=VALUES[:4],
            targets=(10, 11, 12, 20),
            digests=(1, 2, 3, -4),
        ),
        "the two sides differ in length: 5 against 4 tokens",
    ),
    "other positions": (
        record(),
        record(DECODE, index=((0, 0), *INDEX[1:])),
        "the two sides hold different positions",
    ),
    "other widths": (
        record(),
        record(DECODE, values=VALUES[:, :1]),
        "rows of 2 against rows of 1 values",
    ),
    "the same steps": (record(), record(), "both sides ran the same steps"),
    "no decode": (
        record(),
        record(DECODE, observed={"attention.prefill": 5}),
        "the path asks for single-query decode, but no decode was observed",
    ),
    "a decode counted zero times": (
        record(),
        record(DECODE, observed={"attention.prefill": 5, "attention.decode": 0}),
        "the path asks for single-query decode, but no decode was observed",
    ),
    "no decode in the reference": (
        record(DECODE, observed={"attention.prefill": 5}),
        record(),
        "the reference asks for single-query decode, but no decode was observed",
    ),
    "decode in prefill": (
        record(DECODE),
        record(observed={"attention.decode": 5}),
        "the path asks for prefill only, but decode was observed",
    ),
    "decode in the reference's prefill": (
        record(observed={"forward.decode": 5}),
        record(DECODE),
        "the reference asks for prefill only, but decode was observed",
    ),
    "the same launches": (
        record(launched={"attention.prefill": 2}),
        record(DECODE, launched={"attention.prefill": 2}),
        "both sides launched the same kernels equally often, for 2 steps and 3",
    ),
    "too few decodes": (
        record(),
        record(DECODE, observed={"attention.prefill": 5, "attention.decode": 1}),
        "the path asks for 2 decode steps, but only 1 were observed",
    ),
    "one decode step fewer": (
        record(),
        record(THREE, observed={"forward.decode": 2}),
        "the path asks for 3 decode steps, but only 2 were observed",
    ),
    "one decode step of a loop fewer": (
        record(),
        record(LOOP, observed={"forward.decode": 2}),
        "the path asks for 3 decode steps, but only 2 were observed",
    ),
    "few steps of many layers": (  # each layer counts, and all of them are no step more
        record(),
        record(THREE, observed={"forward.decode": 2, "attention.decode": 8}),
        "the path asks for 3 decode steps, but only 2 were observed",
    ),
    "few steps, counted by two": (
        record(),
        record(THREE, observed={"forward.decode": 2, "sdpa.decode": 2}),
        "the path asks for 3 decode steps, but only 2 were observed",
    ),
    "one of two kernels never decoded": (
        record(),
        record(THREE, observed={"forward.decode": 3, "attention.decode": 0}),
        "the path asks for single-query decode, but no decode was observed",
    ),
    "one decode in prefill": (
        record(DECODE),
        record(observed={"attention.prefill": 5, "attention.decode": 1}),
        "the path asks for prefill only, but decode was observed",
    ),
    "a decode in prefill, counted by one of two": (
        record(DECODE),
        record(observed={"forward.decode": 0, "attention.decode": 1}),
        "the path asks for prefill only, but decode was observed",
    ),
    **{
        f"{told}, {program}": (
            record(),
            record(replace(DECODE, layout=Layout(program=program)), observed=observed),
            f"the path asks for {found} observed",
        )
        for program in PROGRAMS
        for told, found, observed in (
            ("no program", f"its {program} program, but none was", {"forward.decode": 2}),
            (
                "a program for prompts alone",
                f"its {program} program, but none was",
                {"forward.decode": 2, "program.prefill": 2},
            ),
            (
                "a program for one step",
                "2 decode steps, but only 1 were",
                {"forward.decode": 2, "program.decode": 1},
            ),
        )
    },
    "the same launches, more steps first": (
        record(DECODE, launched={"attention.prefill": 2}),
        record(launched={"attention.prefill": 2}),
        "both sides launched the same kernels equally often, for 3 steps and 2",
    ),
    "a loop without decode": (
        record(),
        record(LOOP, observed={"forward.prefill": 5}),
        "the path asks for single-query decode, but no decode was observed",
    ),
}


def test_what_ran_as_asked_holds() -> None:
    loop = record(LOOP, observed={"forward.decode": 3, "attention.decode": 6})
    assert invariance(record(), loop, column=0).outcome == "holds"
    for program in PROGRAMS:
        plan = replace(DECODE, layout=Layout(program=program))
        traced = record(plan, observed={"program.decode": 2, "attention.decode": 4})
        assert invariance(record(), traced, column=0).outcome == "holds"


@pytest.mark.parametrize("name", VOID)
def test_a_comparison_that_shows_nothing_is_void(name: str) -> None:
    reference, candidate, reason = VOID[name]
    found = invariance(reference, candidate, column=0)
    assert (found.outcome, found.reason) == ("void", reason)


def test_other_launches_for_other_steps_are_no_reason_to_doubt() -> None:
    few = record(launched={"attention.prefill": 2})
    more = record(DECODE, launched={"attention.prefill": 2, "attention.decode_split": 3})
    assert invariance(few, more, column=0).outcome == "holds"


def test_a_real_difference_outranks_idle_work() -> None:
    idle = record(values=changed(0, 0, -9.0))
    assert invariance(record(), idle, column=0).outcome == "differs"


def test_the_same_steps_in_another_layout_are_another_path() -> None:
    paged = replace(PREFILL, layout=Layout(page=16))
    assert invariance(record(), record(paged), column=0).outcome == "holds"
    strangers = replace(PREFILL, members=(*MEMBERS, Member("s", 3)))
    assert invariance(record(), record(strangers), column=0).outcome == "holds"

"""Dataflow without names: what is the same expression and what is not."""

from __future__ import annotations

import random
import re

import pytest

from kvparity.relations.audit.flow import LEAF, Skeleton, skeleton
from kvparity.relations.audit.ptx import constants, parse

STEP = """
sub.rn.f32 %r3, %r1, %r2;
ex2.approx.ftz.f32 %r4, %r3;
mul.rn.f32 %r5, %r4, %r6;
fma.rn.f32 %r7, %r8, %r4, %r5;
selp.f32 %r9, %r7, 0fFF800000, %p1;
shfl.sync.bfly.b32 %r10, %r9, 2, 31, -1;
add.rn.f32 %r11, %r9, %r10;
"""


def flow(text: str) -> Skeleton:
    return skeleton(parse("{\n" + text + "\n}").instructions)


def changed(old: str, new: str) -> Skeleton:
    assert old in STEP
    return flow(STEP.replace(old, new))


def test_names_of_registers_do_not_matter() -> None:
    numbers = random.Random(0).sample(range(100, 999), 12)
    renamed = re.sub(r"%r(\d+)", lambda m: f"%r{numbers[int(m[1])]}", STEP)
    assert flow(renamed) == flow(STEP)
    assert len(flow(STEP).nodes) == 7


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mul.rn.f32 %r5, %r4, %r6", "mul.rn.f32 %r5, %r6, %r4"),
        ("fma.rn.f32 %r7, %r8, %r4", "fma.rn.f32 %r7, %r4, %r8"),
        ("%r9, %r7, 0fFF800000, %p1", "%r9, 0fFF800000, %r7, %p2"),
        ("mul.rn.f32", "mul.f32"),
        (
            "selp.f32 %r9, %r7, 0fFF800000, %p1;",
            "selp.f32 %r77, %r7, 0fFF800000, %p1;\nselp.f32 %r9, %r77, 0fFF800000, %p2;",
        ),
        ("add.rn.f32 %r11", "ld.global.b32 %r50, [%rd1];\nadd.s32 %r51, %r50, 4;\nadd.rn.f32 %r11"),
        ("add.rn.f32 %r11, %r9, %r10", "mov.b32 %r60, %r10;\nadd.rn.f32 %r11, %r9, %r60"),
    ],
)
def test_what_does_not_change_arithmetic(old: str, new: str) -> None:
    assert changed(old, new) == flow(STEP)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sub.rn.f32 %r3, %r1, %r2", "sub.rn.ftz.f32 %r3, %r1, %r2"),
        ("ex2.approx.ftz.f32", "ex2.approx.f32"),
        ("fma.rn.f32 %r7, %r8, %r4, %r5", "fma.rn.f32 %r7, %r8, %r5, %r4"),
        ("%r9, 2, 31", "%r9, 1, 31"),
        ("0fFF800000", "0f00000000"),
        ("fma.rn.f32 %r7, %r8, %r4, %r5", "mul.rn.f32 %r6, %r8, %r4;\nadd.rn.f32 %r7, %r6, %r5"),
        ("add.rn.f32 %r11, %r9, %r10", "add.rn.f32 %r11, %r9, %r9"),
    ],
)
def test_what_does(old: str, new: str) -> None:
    assert changed(old, new).fingerprint != flow(STEP).fingerprint


def test_packed_arithmetic_is_that_of_its_lanes() -> None:
    scalar = "mul.rn.f32 %r5, %r1, %r2;\nadd.rn.f32 %r7, %r5, %r6;"
    packed = """
mov.b64 %rd1, {%r1, %r3};
mov.b64 %rd2, {%r2, %r4};
mul.rn.f32x2 %rd3, %rd1, %rd2;
mov.b64 {%r5, %r8}, %rd3;
add.rn.f32 %r7, %r5, %r6;
"""
    assert flow(packed) == flow(scalar)


def test_given_values_are_leaves() -> None:
    first = "ex2.approx.ftz.f32 %r2, %r1;\nadd.rn.f32 %r3, %r2, %r9;"
    second = "mul.rn.f32 %r4, %r3, %r5;"
    whole = parse("{\n" + first + "\n" + second + "\n}").instructions
    assert skeleton(whole, flow(first).names) == flow(second)
    assert skeleton(whole) != flow(second)


def test_a_value_that_went_through_memory_fits_what_it_was() -> None:
    kept = flow("ex2.approx.ftz.f32 %r2, %r1;\nmul.rn.f32 %r3, %r4, %r2;")
    lost = flow(
        "ex2.approx.ftz.f32 %r2, %r1;\nst.shared.b32 [%r9], %r2;\nld.shared.b32 %r2, [%r9];\n"
        "mul.rn.f32 %r3, %r4, %r2;"
    )
    assert kept != lost
    assert kept.fits(lost)
    assert lost.fits(kept)


def test_an_exchange_between_threads_is_a_move_where_nothing_is_summed() -> None:
    plain = "ex2.approx.ftz.f32 %r2, %r1;\nmul.rn.f32 %r3, %r4, %r2;"
    moved = (
        "ex2.approx.ftz.f32 %r2, %r1;\nshfl.sync.bfly.b32 %r7, %r2, 8, 31, -1;\n"
        "selp.f32 %r8, %r2, %r7, %p1;\nmul.rn.f32 %r3, %r4, %r8;"
    )
    code = parse("{\n" + moved + "\n}").instructions
    assert skeleton(code, exchanges=False) == flow(plain)
    assert skeleton(code) != flow(plain)
    summed = parse("{\n" + STEP + "\n}").instructions
    assert "add.rn.f32" in skeleton(summed, exchanges=False).kinds()


def test_another_operation_or_one_more_does_not_fit() -> None:
    kept = flow("ex2.approx.ftz.f32 %r2, %r1;\nmul.rn.f32 %r3, %r4, %r2;")
    for text in (
        "ex2.approx.ftz.f32 %r2, %r1;\nadd.rn.f32 %r3, %r4, %r2;",
        "ex2.approx.f32 %r2, %r1;\nmul.rn.f32 %r3, %r4, %r2;",
        "ex2.approx.ftz.f32 %r2, %r1;\nmul.rn.f32 %r3, %r4, %r2;\nmax.f32 %r5, %r3, %r4;",
    ):
        assert not kept.fits(flow(text))
        assert not flow(text).fits(kept)
    assert kept.beyond(flow("ex2.approx.ftz.f32 %r2, %r1;")) == {"mul.rn.f32": 1}


def in_loop(before: str, loop: str) -> Skeleton:
    """The flow of ``loop``, where ``before`` stands in front of it."""
    whole = parse("{\n" + before + loop + "\n}").instructions
    return skeleton(whole[before.count(";") :], constants=constants(whole))


def test_a_number_is_one_wherever_the_compiler_keeps_it() -> None:
    named = in_loop("", "mov.b32 %r5, 0f00000000;\nsub.rn.f32 %r3, %r5, %r2;")
    held = in_loop("mov.b32 %r5, 0f00000000;\n", "sub.rn.f32 %r3, %r5, %r2;")
    assert named == held
    assert named.nodes[0].parts == ("0f00000000", LEAF)
    other = in_loop("mov.b32 %r5, 0f3F800000;\n", "sub.rn.f32 %r3, %r5, %r2;")
    loaded = in_loop("ld.shared.b32 %r5, [%r9];\n", "sub.rn.f32 %r3, %r5, %r2;")
    assert len({named, other, loaded}) == 3


def test_a_register_that_is_written_again_holds_no_number() -> None:
    step = "sub.rn.f32 %r3, %r5, %r2;\n"
    running = in_loop("mov.b32 %r5, 0f00000000;\n", step + "mov.b32 %r5, %r3;")
    assert running.nodes[0].parts == (LEAF, LEAF)
    guarded = in_loop("@%p1 mov.b32 %r5, 0f00000000;\n", step)
    assert guarded.nodes[0].parts == (LEAF, LEAF)

"""The dataflow that is read, against the trees of the same programs; and what fits what."""

from __future__ import annotations

import random

import dataflow
import pytest

from kvparity.relations.audit.flow import LEAF, Node, Skeleton, skeleton
from kvparity.relations.audit.ptx import parse

SEEDS = range(120)


def flow(text: str) -> Skeleton:
    return skeleton(parse("{\n" + text.replace(";", ";\n") + "\n}").instructions)


def read(seed: int, **more: object) -> Skeleton:
    lines = dataflow.program(seed)
    return skeleton(parse(dataflow.text(lines)).instructions, **more)  # type: ignore[arg-type]


def test_the_values_of_a_program() -> None:
    for seed in SEEDS:
        found = read(seed)
        seen = dataflow.expanded(found)
        assert set(seen.values()) == dataflow.trees(dataflow.program(seed)), seed
        assert len(set(seen.values())) == len(found.nodes)
        assert list(found.nodes) == sorted(found.nodes)


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_values_of_a_program_with_some_given(exchanges: bool) -> None:
    for seed in SEEDS:
        known = dataflow.expanded(read(seed))
        names = random.Random(seed).sample(sorted(known), len(known) // 3)
        given = {known[name] for name in names}
        found = read(seed, leaves=frozenset(names), exchanges=exchanges)
        assert set(dataflow.expanded(found).values()) == dataflow.trees(
            dataflow.program(seed), given, exchanges
        ), seed


def test_where_all_is_given_nothing_is_left() -> None:
    """Scores that are masked, as in a walk that is woven into the loop that merges."""
    text = """{
    mul.rn.f32 %r2, %r1, %r1;
    selp.f32 %r3, %r2, 0fFF800000, %p1;
    max.f32 %r4, %r3, %r3;
    selp.f32 %r5, 0f00000000, %r4, %p2;
    sub.rn.f32 %r6, %r3, %r5;
    }"""
    program = parse(text.replace("    ", "")).instructions
    known = skeleton(program)
    assert len(known.nodes) == 5
    assert skeleton(program, known.names).nodes == ()


def test_what_a_value_is_made_from() -> None:
    for seed in SEEDS:
        found = read(seed)
        known = dataflow.expanded(found)

        def inside(tree: dataflow.Tree) -> set[dataflow.Tree]:
            parts = set() if isinstance(tree, str) else set(tree[1:])
            return parts.union(*map(inside, parts))

        for node in found.nodes:
            made_from = {known.get(name, name) for name in found.made_from(node)}
            assert made_from == inside(known[node.name])


X = "ex2.approx.f32 %r2, %r1;"
Y = "neg.f32 %r3, %r1;"
Z = "abs.f32 %r4, %r1;"
LOST_X = "ld.shared.b32 %r2, [%r9];"
LOST_Y = "ld.shared.b32 %r3, [%r9];"
LOST_Z = "ld.shared.b32 %r4, [%r9];"
ALL = X + Y + Z


@pytest.mark.parametrize(
    ("one", "two", "fits"),
    [
        ("add.f32 %r5, %r2, %r3;", LOST_X + "add.f32 %r5, %r2, %r3;", True),
        ("add.f32 %r5, %r2, %r3;", LOST_Y + "add.f32 %r5, %r2, %r3;", True),
        ("add.f32 %r5, %r2, %r3;", LOST_Y + "add.f32 %r5, %r3, %r4;", False),
        ("sub.f32 %r5, %r2, %r3;", LOST_X + "sub.f32 %r5, %r2, %r3;", True),
        ("sub.f32 %r5, %r2, %r3;", LOST_X + "sub.f32 %r5, %r3, %r2;", False),
        ("fma.rn.f32 %r5, %r2, %r3, %r4;", LOST_X + "fma.rn.f32 %r5, %r2, %r3, %r4;", True),
        ("fma.rn.f32 %r5, %r2, %r3, %r4;", LOST_Y + "fma.rn.f32 %r5, %r2, %r3, %r4;", True),
        ("fma.rn.f32 %r5, %r2, %r3, %r4;", LOST_Z + "fma.rn.f32 %r5, %r2, %r3, %r4;", True),
        ("fma.rn.f32 %r5, %r2, %r3, %r4;", LOST_X + "fma.rn.f32 %r5, %r2, %r4, %r3;", False),
        ("selp.f32 %r5, %r2, %r3, %p1;", LOST_X + "selp.f32 %r5, %r2, %r3, %p1;", True),
        ("selp.f32 %r5, %r2, %r3, %p1;", LOST_Y + "selp.f32 %r5, %r2, %r3, %p1;", True),
        ("selp.f32 %r5, %r2, %r3, %p1;", LOST_Y + "selp.f32 %r5, %r4, %r3, %p1;", False),
        (
            "selp.f32 %r5, %r2, %r3, %p1;",
            "selp.f32 %r6, %r2, %r3, %p1;selp.f32 %r5, %r6, %r4, %p1;",
            False,
        ),
        (
            "selp.f32 %r5, %r2, %r7, %p1;",
            "selp.f32 %r6, %r2, %r7, %p1;selp.f32 %r5, %r6, %r4, %p1;",
            False,
        ),
        ("mul.f32 %r5, %r2, 0f40000000;", "mul.f32 %r5, %r2, 0f40000000;", True),
        ("mul.f32 %r5, %r2, 0f40000000;", LOST_X + "mul.f32 %r5, %r2, 0f40000000;", True),
        ("mul.f32 %r5, %r2, 0f40000000;", "mul.f32 %r5, %r2, 0f3F800000;", False),
        ("mul.f32 %r5, %r2, 0f40000000;", "mul.f32 %r5, %r3, 0f40000000;", False),
        ("mul.f32 %r5, %r2, 0f40000000;", "mul.f32 %r5, %r2, %r3;", False),
        ("mul.f32 %r5, %r2, %r3;", "mul.rn.ftz.f32 %r5, %r2, %r3;", False),
        ("add.f32 %r5, %r2, %r3;", "mul.f32 %r5, %r2, %r3;", False),
        ("", "add.f32 %r5, %r2, %r3;", False),
        (
            "mul.f32 %r5, %r2, 0f40000000;neg.f32 %r6, %r5;",
            "mul.f32 %r5, %r2, 0f40000000;add.f32 %r7, %r2, 0f40000000;neg.f32 %r6, %r7;",
            False,
        ),
    ],
)  # fmt: skip
def test_what_fits_where_some_origins_are_hidden(one: str, two: str, fits: bool) -> None:
    """Both have the same values beside; what passed through memory comes back without a name."""
    first, second = flow(ALL + one), flow(ALL + two)
    assert first.fits(second) == second.fits(first) == fits


MMA = "mma.sync.aligned.m16n8k16 {%r10, %r11}, {%r2, %r3}, {%r4, %r5}, {%r12, %r13};"
SHARED = "wgmma.mma_async.sync.m64 {%r10, %r11}, %rd1, %rd2, %p1, 1, 1, 0;"
HELD = "wgmma.mma_async.sync.m64 {%r10, %r11}, {%r2, %r3}, %rd2, %p1, 1, 1, 0;"
OLD = "neg.f32 %r10, %r8;abs.f32 %r11, %r8;"
USE = "sub.rn.f32 %r20, %r10, %r11;"
FOURTH = "sqrt.rn.f32 %r5, %r1;tanh.approx.f32 %r12, %r1;rcp.rn.f32 %r13, %r1;"
FULL = OLD + ALL + FOURTH


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (MMA, MMA.replace("%r10, %r11", "%r30, %r31"), False),  # USE reads others
        (MMA, MMA.replace("m16n8k16", "m16n8k8"), False),
        (MMA, MMA.replace("%r2, %r3", "%r3, %r2"), False),
        (MMA, MMA.replace("%r2, %r3", "%r2, %r4"), False),
        (MMA, MMA.replace("%r4, %r5", "%r5, %r4"), False),
        (MMA, MMA.replace("%r2, %r3}, {%r4", "%r2}, {%r3, %r4"), False),
        (MMA, MMA.replace("%r12, %r13", "%r13, %r12"), False),
        (MMA, MMA.replace("%r12, %r13", "%r12, %r12"), False),
        (MMA, OLD + MMA, True),
        (MMA, "mov.b32 %r42, %r2;" + MMA.replace("%r2,", "%r42,"), True),
        (SHARED, SHARED.replace("%p1", "0"), False),
        (SHARED, SHARED.replace("1, 1, 0", "1, -1, 0"), False),
        (SHARED, SHARED.replace("m64", "m32"), False),
        (SHARED, SHARED.replace("%rd1, %rd2", "%rd3, %rd4"), True),
        (SHARED, SHARED.replace("%p1", "%p7"), True),
        (SHARED, HELD, False),
        (SHARED, "neg.f32 %r10, %r9;" + SHARED, True),
        (SHARED, "mov.b32 %r11, %r10;" + SHARED, False),
        (SHARED.replace("%p1", "0"), "mov.b32 %r11, %r10;" + SHARED.replace("%p1", "0"), True),
        (HELD, HELD.replace("%r2, %r3", "%r3, %r2"), False),
        (HELD, HELD.replace("%r2, %r3", "%r2, %r4"), False),
        ("tcgen05.mma.x [%r1], [%r2], %rd1, %r3, %p1;", "", False),
        ("tcgen05.mma.x [%r1], [%r2], %rd1, %r3, %p1;",
         "tcgen05.mma.y [%r1], [%r2], %rd1, %r3, %p1;", False),
        ("tcgen05.mma.x [%r1], [%r2], %rd1, %r3, %p1;",
         "tcgen05.mma.x [%r5], [%r6], %rd5, %r7, %p2;", True),
    ],
)  # fmt: skip
def test_matrix_instructions_in_the_dataflow(one: str, two: str, same: bool) -> None:
    assert (flow(FULL + one + USE) == flow(FULL + two + USE)) == same


def test_what_one_matrix_instruction_makes() -> None:
    (difference,) = (each for each in flow(MMA + USE).nodes if each.op == "sub.rn.f32")
    assert len(set(difference.parts)) == 1  # from accumulators that are leaves, so alike
    assert flow(MMA).kinds() == {"mma.sync.aligned.m16n8k16": 1}
    assert flow(FULL + MMA).kinds()["mma.sync.aligned.m16n8k16"] == 2
    assert flow(SHARED.replace("%p1", "0")).kinds() == {"wgmma.mma_async.sync.m64": 1}


HALVES = "cvt.rn.bf16x2.f32 %r5, %r2, %r3;"
PACK = "mov.b32 %r6, {%h1, %h2};"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (HALVES, "cvt.rn.bf16.f32 %h1, %r2;cvt.rn.bf16.f32 %h2, %r3;", True),
        (HALVES, "cvt.rn.bf16x2.f32 %r5, %r3, %r2;", True),  # which half is which shows in its use
        (HALVES, "cvt.rn.bf16x2.f32 %r5, %r2, %r2;", False),
        (HALVES + "add.f32 %r7, %r5, %r2;",
         "cvt.rn.bf16x2.f32 %r5, %r3, %r2;add.f32 %r7, %r5, %r2;", False),
        (HALVES + "add.f32 %r7, %r5, %r2;", HALVES + "add.f32 %r7, %r8, %r2;", False),
        (HALVES + "mov.b32 {%h1, %h2}, %r5;add.f32 %r7, %h1, %r2;",
         HALVES + "mov.b32 {%h1, %h2}, %r5;add.f32 %r7, %h2, %r2;", False),
        (HALVES + "mov.b32 {%h1, %h2}, %r5;add.f32 %r7, %h1, %r2;",
         HALVES + "add.f32 %r7, %h1, %r2;", False),
        ("mov.b32 {%h1, %h2}, %r8;add.f32 %r7, %h1, %r2;", "add.f32 %r7, %h1, %r2;", True),
        (HALVES + "mov.b32 %r6, %r5;mov.b32 {%h1, %h2}, %r6;add.f32 %r7, %h1, %r2;",
         HALVES + "mov.b32 {%h1, %h2}, %r5;add.f32 %r7, %h1, %r2;", True),
        ("mov.b64 %rd1, {%r2, %r3};mov.b32 %h3, %r3;mov.b64 {%h1, %h2, %h3, %h4}, %rd1;"
         "add.f32 %r7, %h3, %r2;", "add.f32 %r7, %h3, %r2;", True),
        ("mov.b32 %h1, %r2;mov.b32 %h2, %r3;" + PACK, "", False),
        ("mov.b32 %h1, %r2;" + PACK, "", False),
        (PACK, "", True),
        ("mov.b32 %h1, %r2;" + PACK + "add.f32 %r7, %r6, %r2;",
         "mov.b32 %h1, %r3;" + PACK + "add.f32 %r7, %r6, %r2;", False),
        ("cvt.rn.f32.s32 %r5, %r1;", "cvt.rz.f32.s32 %r5, %r1;", False),
        ("cvt.rn.f16x2.e4m3x2 %r5, %r2;", "", False),
        ("cvt.u64.u32 %rd5, %r2;", "", True),
        ("setp.lt.f32 %p1, %r2, %r3;", "", True),
        ("cvt.rs.bf16x2.f32 %r5, %r2, %r3, %r4;", HALVES, False),
        ("selp.b16 %r5, %r2, %r3, %p1;", "", True),
        ("selp.b32 %r5, %r2, 0, %p1;", "", False),
        ("selp.f32 %r5, %r7, %r8, %p1;", "", True),
        ("selp.f32 %r5, %r7, 0f00000000, %p1;", "", False),
        ("selp.b32 %r2, %r7, %r8, %p1;add.f32 %r5, %r2, %r3;",
         "ld.shared.b32 %r2, [%r9];add.f32 %r5, %r2, %r3;", True),
    ],
)  # fmt: skip
def test_halves_conversions_and_choices(one: str, two: str, same: bool) -> None:
    assert (flow(ALL + one) == flow(ALL + two)) == same


def test_a_fingerprint_is_ten_digits_of_the_values_alone() -> None:
    assert len({flow(text).fingerprint for text in (X, Y, X + Y, "ret;")}) == 4
    assert flow(X + Y).fingerprint == flow(Y + X + X).fingerprint
    assert all(len(flow(text).fingerprint) == 10 for text in (X, "ret;"))
    assert flow(X).nodes == (Node(flow(X).nodes[0].name, "ex2.approx.f32", (LEAF,)),)


def test_what_is_beyond_another() -> None:
    assert flow(ALL + "neg.f32 %r8, %r2;").beyond(flow(X)) == {"abs.f32": 1, "neg.f32": 2}
    assert flow(X).beyond(flow(ALL)) == {}
    assert flow(ALL).kinds() == {"abs.f32": 1, "ex2.approx.f32": 1, "neg.f32": 1}

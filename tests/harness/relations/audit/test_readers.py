"""What each reader takes from a few lines of text: one thing at a time, by hand."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from kvparity.relations.audit import cfg, ptx, sass, ttgir


def body(*lines: str) -> list[str]:
    return [each.op for each in ptx.parse("\n".join(lines)).instructions]


@pytest.mark.parametrize(
    ("lines", "ops"),
    [
        ((".extern .func f(", ".param .b32 a", ")", ";", "{", "ret;", "}"), ["ret"]),
        (("mov.b32 %r1, 0;", "{", "ret;"), ["ret"]),
        (("{", "{", "nop;", "}", "ret;", "}"), ["nop", "ret"]),
        (("{", "$L_brx_0: .branchtargets $L__BB0_1;", "ret;"), ["ret"]),
        (("{", ".reg .b32 %r<9>;", "ret;"), ["ret"]),
        (("{", "ret;", "$L__func_end0:", "// nothing;"), ["ret"]),
    ],
    ids=["declaration", "before", "inner brace", "branch targets", "registers", "label"],
)
def test_only_instructions_of_the_body_are_read(lines: tuple[str, ...], ops: list[str]) -> None:
    assert body(*lines) == ops


@pytest.mark.parametrize(
    ("lines", "held"),
    [
        (("mov.b32 %r1, 0f3F800000;",), {"%r1": "0f3F800000"}),
        (("mov.f32 %r1, 0f3F800000;",), {"%r1": "0f3F800000"}),
        (("mov.b32 %r1, 1;",), {}),
        (("add.f32 %r1, 0f3F800000, %r2;",), {}),
        (("@%p1 mov.b32 %r1, 0f3F800000;",), {}),
        (("mov.b32 %r1, 0f3F800000;", "ld.global.b32 %r1, [%rd1];"), {}),
        (("mov.b32 %r1, 0f3F800000;", "mov.b64 {%r1, %r2}, %rd1;"), {}),
        (("ret;", "mov.b32 %r1, 0f3F800000;", "st.global.b32 [%rd1], %r1;"), {"%r1": "0f3F800000"}),
    ],
)
def test_a_register_holds_a_number_if_it_is_all_that_is_written(
    lines: tuple[str, ...], held: dict[str, str]
) -> None:
    assert ptx.constants(ptx.parse("\n".join(["{", *lines])).instructions) == held


def test_a_jump_through_a_table_is_refused() -> None:
    program = ptx.parse("{\nbrx.idx %r1, $L_brx_0;\nret;\n}")
    with pytest.raises(ValueError, match="branches to %r1"):
        cfg.control_flow(program)


DOT = (
    "%d = tt.dot %a, %b, %c{more} : tensor<16x32xf32, #ttg.dot_op<{{opIdx = 0, parent = #l}}>> * "
    "tensor<32x64xf16, #ttg.dot_op<{{opIdx = 1, parent = #l}}>> -> tensor<16x64xf32, #l>"
)
REDUCE = """%s = "tt.reduce"(%d) <{{axis = {axis} : i32}}> ({{
^bb0(%x: f32, %y: f32):
  %z = arith.{op} %x, %y : f32
  tt.reduce.return %z : f32
}}) : (tensor<16x64xf32, #l>) -> tensor<16xf32, #ttg.slice<{{dim = 1, parent = #l}}>>"""
LAYOUT = "#l = #ttg.blocked<{order = [1, 0]}>"


def gpu(*lines: str) -> ttgir.Structure:
    return ttgir.parse("\n".join([LAYOUT, "tt.func public @k() {", *lines, "}"]))


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        ("", ("ieee", 0)),
        (", inputPrecision = tf32", ("tf32", 0)),
        (" {maxNumImpreciseAcc = 32 : i32}", ("ieee", 32)),
        (", inputPrecision = tf32x3 {maxNumImpreciseAcc = 7 : i32}", ("tf32x3", 7)),
    ],
)
def test_what_a_product_says_of_its_precision(more: str, seen: tuple[str, int]) -> None:
    (dot,) = gpu(DOT.format(more=more)).dots
    assert astuple(dot) == ("dot", "16x32xf32", "32x64xf16", "blocked(order = [1, 0])", *seen)


def test_a_product_with_an_operand_in_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"this TTGIR writes tt\.dot in a way"):
        gpu(DOT.format(more="").replace("tensor<32x64xf16, #", "vector<32x64xf16, #"))


def test_each_kind_of_reduction_is_read_once() -> None:
    sums = REDUCE.format(axis=1, op="addf")
    found = gpu(sums, sums, REDUCE.format(axis=0, op="maxnumf"))
    layout = "blocked(order = [1, 0])"
    assert [astuple(each) for each in found.reduces] == [
        ("addf", 1, 64, layout),
        ("maxnumf", 0, 16, layout),
    ]
    assert found.dots == ()


def test_one_reduction_in_another_form_among_others_is_refused() -> None:
    known = REDUCE.format(axis=1, op="addf")
    with pytest.raises(ValueError, match="writes a reduction in a way that is not known"):
        gpu(known, known.replace("axis = 1", "axis = one"))


def test_atomics_are_counted() -> None:
    assert gpu("%a = tt.atomic_rmw fadd, %p", "%b = tt.atomic_cas acq_rel, %p").atomics == 2
    assert gpu("tt.return").atomics == 0


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ("FFMA", (1, 0, 0, 0, {})),
        ("FFMA2", (2, 0, 0, 0, {})),
        ("FMUL FMUL.FTZ FMUL2", (0, 4, 0, 0, {})),
        ("FADD2 FADD FADD2", (0, 0, 5, 0, {})),
        ("MUFU.EX2 MUFU.RCP MUFU.EX2.F16", (0, 0, 0, 2, {})),
        ("HMMA.16816.F32 HMMA.16816.F32 MOV", (0, 0, 0, 0, {"HMMA.16816.F32": 2})),
        ("DFMA IADD3 FADDX", (0, 0, 0, 0, {})),
    ],
)
def test_operations_of_the_machine_code(names: str, seen: tuple[object, ...]) -> None:
    lines = [f"        /*{at:04x}*/                   {name} R1, R2, R3 ;"
             for at, name in enumerate(names.split())]  # fmt: skip
    assert astuple(sass.parse("\n".join(lines))) == seen

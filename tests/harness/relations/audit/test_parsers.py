"""Each reader of an artefact on a few lines of it, and on lines that it must refuse."""

from __future__ import annotations

import pytest

from kvparity.relations.audit import cfg, ptx, sass, ttgir
from kvparity.relations.audit.ptx import Instruction

BODY = """
.version 8.7
.target sm_90a
.visible .entry k(.param .u64 p)
{
	.reg .b32 	%r<9>;
// %bb.0:
	mov.b32 	%r1, 0f00000000; // a comment; with a semicolon
	@%p1 bra 	$L__BB0_9;
$L__BB0_1:
	fma.rn.f32 	%r1, %r2, %r3, %r1;
	shfl.sync.bfly.b32 	%r4|%p2, %r1, 16, 31, -1;
	@!%p2 bra 	$L__BB0_1;
$L__BB0_9:
	tcgen05.st.sync.aligned [%r5 + 0], 32, {%r1, %r1};
	red.global.add.f32 	[%rd1], %r1;
	ret;
$L__func_end0:
}
"""


def test_ptx_instructions() -> None:
    program = ptx.parse(BODY)
    assert [each.op for each in program.instructions][:3] == ["mov.b32", "bra", "fma.rn.f32"]
    assert program.instructions[1] == Instruction("bra", ("$L__BB0_9",), "%p1")
    assert program.instructions[2].operands == ("%r1", "%r2", "%r3", "%r1")
    assert ptx.registers(program.instructions[3].operands[0]) == ["%r4"]
    assert program.labels == {"$L__BB0_1": 2, "$L__BB0_9": 5}
    assert ptx.atomics(program.instructions) == 1


def test_ptx_without_a_body_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernel body"):
        ptx.parse(".version 8.7\n.target sm_90a\n")


def blocks(text: str) -> cfg.Flow:
    return cfg.control_flow(ptx.parse("{\n" + text + "\n}"))


# The inner loop stands behind the code that follows it, as newer compilers lay it out.
NESTED = """
mov.b32 %r1, 1;
$L__BB0_1:
add.s32 %r2, %r2, 1;
bra.uni $L__BB0_4;
$L__BB0_2:
max.f32 %r4, %r4, %r5;
@%p1 bra $L__BB0_1;
lg2.approx.f32 %r6, %r4;
ret;
$L__BB0_4:
mma.sync.aligned.m16n8k16 {%r7}, {%r1}, {%r2}, {%r7};
@%p2 bra $L__BB0_4;
bra.uni $L__BB0_2;
"""


def test_loops_are_found_from_branches_not_from_lines() -> None:
    flow = blocks(NESTED)
    assert sorted(len(each.blocks) for each in flow.loops) == [1, 4]
    parts = cfg.cut(flow)
    assert parts.around
    named = [
        [each.op.split(".")[0] for each in part]
        for part in (parts.before, parts.loop, parts.after, parts.finish)
    ]
    assert named == [["add", "bra"], ["mma", "bra"], ["bra", "max", "bra"], ["lg2", "ret"]]


def test_a_kernel_without_loops_is_all_before() -> None:
    parts = cfg.cut(blocks("mov.b32 %r1, 1;\nret;"))
    assert len(parts.before) == 2
    assert not parts.loop
    assert not parts.around


def test_a_loop_around_straight_matrix_code_is_not_the_loop_over_tiles() -> None:
    text = NESTED.replace("@%p2 bra $L__BB0_4;\n", "")
    parts = cfg.cut(blocks(text))
    assert not parts.around
    assert any(each.matrix for each in parts.loop)  # the only loop there is, with everything in it


TTGIR = """
#blocked = #ttg.blocked<{sizePerThread = [1, 4], warpsPerCTA = [4, 1], order = [1, 0]}>
#mma = #ttg.nvidia_mma<{versionMajor = 3, warpsPerCTA = [4, 1], instrShape = [16, 64, 16]}>
module {
  tt.func public @k() {
    %d = ttng.warp_group_dot %a, %b, %c {inputPrecision = 0 : i32, isAsync = true} : \
!ttg.memdesc<64x32xbf16, #shared, #smem> * !ttg.memdesc<32x64xbf16, #shared1, #smem> -> \
tensor<64x64xf32, #mma>
    %w:2 = ttng.warp_group_dot_wait %d, %a {pendings = 0 : i32} : tensor<64x64xf32, #mma>
    %e = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<16x16xf32, #ttg.dot_op<{opIdx = 0, \
parent = #blocked}>> * tensor<16x16xf32, #ttg.dot_op<{opIdx = 1, parent = #blocked}>> -> \
tensor<16x16xf32, #blocked>
    %s = "tt.reduce"(%d) <{axis = 1 : i32}> ({
    ^bb0(%x: f32, %y: f32):
      %z = arith.addf %x, %y : f32
      tt.reduce.return %z : f32
    }) : (tensor<64x64xf32, #mma>) -> tensor<64xf32, #ttg.slice<{dim = 1, parent = #mma}>>
    %t = tt.atomic_rmw fadd, acq_rel, gpu, %p, %v, %m : f32
  }
}
"""
MMA = "nvidia_mma(versionMajor = 3, warpsPerCTA = [4, 1], instrShape = [16, 64, 16])"


def test_ttgir_structure() -> None:
    found = ttgir.parse(TTGIR)
    dot, group = found.dots
    assert (dot.op, dot.a, dot.precision) == ("dot", "16x16xf32", "tf32")
    assert (group.op, group.a, group.b, group.layout) == (
        "warp_group_dot",
        "64x32xbf16",
        "32x64xbf16",
        MMA,
    )
    assert found.reduces == (ttgir.Reduce("addf", 1, 64, MMA),)
    assert found.atomics == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [("tt.func", "func"), ("axis = 1 : i32", "axis = one"), ("tensor<16x16xf32, #", "tensor<")],
)
def test_ttgir_in_another_form_is_refused(old: str, new: str) -> None:
    with pytest.raises(ValueError, match="this TTGIR"):
        ttgir.parse(TTGIR.replace(old, new))


SASS = """
        /*0090*/                   FFMA R8, R5, R6, R7 ;
        /*00a0*/              @!P0 FFMA.FTZ R8, R5, R6, R7 ;
        /*00b0*/             @!UP1 FADD R2, R3, R4 ;
        /*10c0*/                   FFMA2 R8, R5, R6, R7 ;
        /*10d0*/                   MUFU.EX2 R1, R2 ;
        /*10e0*/                   MUFU.RCP R1, R2 ;
        /*10f0*/                   HGMMA.64x64x16.F32.BF16 R24, R4, gdesc[UR8], !UPT ;
"""


def test_sass_counts() -> None:
    found = sass.parse(SASS)
    assert (found.fma, found.add, found.mul, found.exp2) == (4, 1, 0, 1)
    assert found.matrix == {"HGMMA.64x64x16.F32.BF16": 1}


def test_contraction_is_the_fma_too_many() -> None:
    built = sass.parse(SASS)
    strict = sass.parse(SASS.replace("FFMA2", "FADD2"))
    assert sass.contracted(built, strict) == 2
    assert sass.contracted(strict, built) == sass.contracted(built, built) == 0


def test_no_sass_is_refused() -> None:
    with pytest.raises(ValueError, match="no SASS"):
        sass.parse("nvdisasm fatal: not a cubin")

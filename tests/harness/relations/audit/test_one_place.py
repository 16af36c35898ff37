"""Small kernels whose two sides are the same, and one side changed in one place: the audit says so.

No compiler is asked: the texts hold as little as an audit reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.compile import Artefact
from kvparity.relations.audit.signature import sign
from kvparity.relations.audit.views import AuditSide

BEFORE = "sub.rn.f32 %r20, %r21, %r22;\n"
LOOP = """$L__BB0_2:
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r7}, {%r5}, {%r6}, {%r7};
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r7}, {%r5}, {%r6}, {%r7};
ex2.approx.ftz.f32 %r8, %r9;
fma.rn.f32 %r10, %r8, %r11, %r10;
@%p1 bra $L__BB0_2;
"""
MERGE = "ex2.approx.ftz.f32 %r30, %r31;\nmul.rn.f32 %r33, %r30, %r32;\n"
FINISH = "lg2.approx.ftz.f32 %r40, %r41;\n"
OUTER, BACK = "$L__BB0_1:\n", "@%p2 bra $L__BB0_1;\n"
TTGIR = """#mma = #ttg.nvidia_mma<{versionMajor = 2, warpsPerCTA = [4, 1]}>
#mmb = #ttg.nvidia_mma<{versionMajor = 2, warpsPerCTA = [2, 2]}>
tt.func public @k() {
  %e = tt.dot %a, %b, %c, inputPrecision = ieee : tensor<16x16xbf16, #mma> * \
tensor<16x16xbf16, #mma> -> tensor<16x16xf32, #mma>
  %s = "tt.reduce"(%d) <{axis = 1 : i32}> ({
      %z = arith.addf %x, %y : f32
    }) : (tensor<16x64xf32, #mma>) -> tensor<16xf32, #ttg.slice<{dim = 1, parent = #mma}>>
}
"""
MERGING = "tt.func public @k() {\n}\n"
SASS = "/*0090*/  FMUL R8, R5, R6 ;\n/*00a0*/  FADD R8, R5, R6 ;\n"
FUSED = "/*0090*/  FFMA R8, R5, R6, R7 ;\n"


def kernel(name: str, ptx: str, ttgir: str = TTGIR) -> Artefact:
    return Artefact(
        name, "sm_90", {"SPLIT": 128, "TILE": 32}, {"Q": "bfloat16", "K": "bfloat16"}, 4, 2, False,
        "3.9", "12.9", "0", ttgir, f"{{\n{ptx}ret;\n}}\n", SASS,
    )  # fmt: skip


PREFILL = kernel("prefill", OUTER + BEFORE + LOOP + MERGE + BACK + FINISH)
WALK = kernel("decode_split", BEFORE + LOOP)
COMBINE = kernel("decode_combine", OUTER + MERGE + BACK + FINISH, MERGING)
Kernels = dict[str, Artefact]
Change = Callable[[Kernels], None]


def compared(change: Change) -> KernelComparison:
    kernels = {"prefill": PREFILL, "walk": WALK, "merge": COMBINE}
    change(kernels)
    left, walk, merge = (sign(each) for each in kernels.values())
    return compare(AuditSide("prefill", left), AuditSide("decode", walk, merge))


def text(which: str, old: str, new: str, *, kind: str = "ptx") -> Change:
    """One text of one kernel with one thing in another's place."""

    def change(kernels: Kernels) -> None:
        before = getattr(kernels[which], kind)
        assert before.count(old) == 1, old
        kernels[which] = replace(kernels[which], **{kind: before.replace(old, new)})

    return change


def facts(which: str, **changes: Any) -> Change:
    return lambda kernels: kernels.update({which: replace(kernels[which], **changes)})


def both(old: str, new: str, kind: str) -> Change:
    """The same in prefill and in decode's walk."""

    def change(kernels: Kernels) -> None:
        text("prefill", old, new, kind=kind)(kernels)
        text("walk", old, new, kind=kind)(kernels)

    return change


THROUGH = "st.shared.b32 [%r50], %r{0};\nld.shared.b32 %r{0}, [%r50];\n"
DOT = "inputPrecision = ieee"
REDUCED = "(tensor<16x64xf32, #mma>)"
FIRST = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r7}, {%r5}, {%r6}, {%r7};\nex2"
PLACES: dict[str, tuple[Change, str]] = {
    "another architecture": (facts("walk", arch="sm_80"), "built for"),
    "another Triton": (facts("walk", triton="3.8"), "built for"),
    "another ptxas": (facts("walk", ptxas="12.8"), "built for"),
    "another format of Q": (facts("walk", dtypes={"Q": "float16", "K": "bfloat16"}), "formats"),
    "another format of K": (facts("walk", dtypes={"Q": "bfloat16", "K": "uint8"}), "formats"),
    "another split": (facts("walk", constants={"SPLIT": 64, "TILE": 32}), "split, tile"),
    "another tile": (facts("walk", constants={"SPLIT": 128, "TILE": 16}), "split, tile"),
    "another shape of the instruction": (
        lambda kernels: kernels.update(
            walk=replace(WALK, ptx=WALK.ptx.replace("m16n8k16", "m16n8k8"))
        ),
        "matrix instruction",
    ),
    "tf32": (text("walk", DOT, "inputPrecision = tf32", kind="ttgir"), "input precision"),
    "sums in less than float32": (
        text("walk", DOT, DOT + ", maxNumImpreciseAcc = 32", kind="ttgir"), "input precision",
    ),
    "another combiner": (
        text("walk", "arith.addf", "arith.maxnumf", kind="ttgir"), "layout of reductions",
    ),
    "another size": (
        text("walk", REDUCED, "(tensor<16x32xf32, #mma>)", kind="ttgir"), "layout of reductions",
    ),
    "another layout": (
        text("walk", REDUCED, "(tensor<16x64xf32, #mmb>)", kind="ttgir"), "layout of reductions",
    ),
    "one step fewer along K": (text("walk", FIRST, "ex2"), "K chains"),
    "another operation before the loop": (
        text("walk", "sub.rn.f32 %r20", "add.rn.f32 %r20"), "before the loop",
    ),
    "another operation in the loop": (
        text("walk", "fma.rn.f32 %r10, %r8, %r11, %r10", "fma.rn.f32 %r10, %r10, %r11, %r8"),
        "loop",
    ),
    "a loop whose value is another's": (
        text("walk", "fma.rn.f32 %r10", THROUGH.format(8) + "fma.rn.f32 %r10"), "loop",
    ),
    "another operation in the merge": (
        text("merge", "mul.rn.f32 %r33", "add.rn.f32 %r33"), "merge",
    ),
    "another operation at the end": (text("merge", "lg2.approx", "ex2.approx"), "finish"),
    "another exp in the merge": (
        text("merge", "ex2.approx.ftz.f32 %r30", "ex2.approx.f32 %r30"), "exp",
    ),
    "contraction in the walk": (
        facts("walk", fusion=True, sass=FUSED, strict_sass=SASS), "contraction",
    ),
    "contraction in the merge": (
        facts("merge", fusion=True, sass=FUSED, strict_sass=SASS), "contraction",
    ),
    "contraction in prefill": (
        facts("prefill", fusion=True, sass=FUSED, strict_sass=SASS), "contraction",
    ),
    "an atomic sum in the code": (
        text("walk", "@%p1 bra", "red.global.add.f32 [%rd1], %r10;\n@%p1 bra"), "atomics",
    ),
    "an atomic exchange in the code": (
        text("walk", "@%p1 bra", "atom.global.exch.b32 %r60, [%rd1], %r10;\n@%p1 bra"), "atomics",
    ),
    "an atomic sum in the merge": (
        text("merge", "@%p2 bra", "red.global.add.f32 [%rd1], %r33;\n@%p2 bra"), "atomics",
    ),
    "an atomic sum on both sides": (
        both("@%p1 bra", "red.global.add.f32 [%rd1], %r10;\n@%p1 bra", "ptx"), "atomics",
    ),
    "an atomic sum in Triton": (
        text("walk", "  %s =", "  %t = tt.atomic_rmw fadd, %p, %v : f32\n  %s =", kind="ttgir"),
        "atomics",
    ),
    "an atomic swap in Triton": (
        text("walk", "  %s =", "  %t = tt.atomic_cas acq, %p, %v : f32\n  %s =", kind="ttgir"),
        "atomics",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_one_place_that_differs_is_different(name: str) -> None:
    change, field = PLACES[name]
    found = compared(change)
    assert found.verdict == "different"
    assert field in {each.name for each in found.deciding}


SAME: dict[str, Change] = {
    "nothing": lambda kernels: None,
    "contraction that was allowed and not made": facts("walk", fusion=True, strict_sass=SASS),
    "a merge whose value went through memory": text(
        "merge", "mul.rn.f32", THROUGH.format(30) + "mul.rn.f32"
    ),
    "other names": text("merge", "mul.rn.f32 %r33, %r30, %r32", "mul.rn.f32 %r99, %r32, %r30"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_no_difference_is_the_same(name: str) -> None:
    found = compared(SAME[name])
    assert found.verdict == "same", found.deciding


UNKNOWN: dict[str, tuple[Change, set[str]]] = {
    "no loop that merges": (
        text("merge", BACK, ""),
        {"K chains", "before the loop", "loop", "merge", "finish"},
    ),
    "another kind of instruction": (
        lambda kernels: kernels.update(
            walk=replace(WALK, ptx=WALK.ptx.replace("mma.sync.", "wgmma.mma_async.").replace(
                "{%r5}, {%r6}, {%r7}", "%rd5, %rd6, %p3, 1, 1"))
        ),
        {"matrix instruction", "K chains", "loop"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_told_is_unknown(name: str) -> None:
    change, fields = UNKNOWN[name]
    found = compared(change)
    assert found.verdict == "unknown"
    assert {each.name for each in found.deciding} == fields

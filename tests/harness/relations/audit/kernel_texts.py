"""Both sides of attention as texts of a dozen lines, to change one thing at a time in them."""

from __future__ import annotations

from dataclasses import replace

from kvparity.relations.audit.compile import Artefact
from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.side import read_side
from kvparity.relations.audit.views import AuditSide

TILES = """
sub.rn.f32 %r20, %r21, %r22;
$L__BB0_2:
mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r2}, {%r3}, {%r4}, {%r2};
mul.rn.f32 %r5, %r2, %r6;
ex2.approx.ftz.f32 %r7, %r5;
@%p1 bra $L__BB0_2;
"""
STORE = "neg.f32 %r40, %r41;\n"  # what decode does with a split before it stores it
MERGE = """
max.f32 %r8, %r9, %r10;
ex2.approx.ftz.f32 %r18, %r8;
fma.rn.f32 %r11, %r18, %r12, %r13;
@%p2 bra $L__BB0_1;
"""
FINISH = """
lg2.approx.ftz.f32 %r14, %r15;
div.full.f32 %r16, %r14, %r17;
ret;
"""
PREFILL = f"{{\nmov.b32 %r90, 1;\n$L__BB0_1:\n{TILES}{MERGE}{FINISH}}}"
SPLIT = f"{{\nmov.b32 %r90, 1;\n{TILES}{STORE}ret;\n}}"
COMBINE = f"{{\nmov.b32 %r90, 1;\n$L__BB0_1:\n{MERGE}{FINISH}}}"
DOT = (
    "%d = tt.dot %a, %b, %c, inputPrecision = tf32 : tensor<16x16xf32, #ttg.dot_op<{opIdx = 0, "
    "parent = #l}>> * tensor<16x8xf32, #ttg.dot_op<{opIdx = 1, parent = #l}>> -> "
    "tensor<16x8xf32, #l>\n"
)
SUM = """%s = "tt.reduce"(%d) <{axis = 1 : i32}> ({
  %z = arith.addf %x, %y : f32
}) : (tensor<16x8xf32, #l>) -> tensor<16xf32, #ttg.slice<{dim = 1, parent = #l}>>
"""
WALKS = f"#l = #ttg.blocked<{{order = [1, 0]}}>\ntt.func public @k() {{\n{DOT}{SUM}}}"
MERGES = "tt.func public @k() {\n}"
SASS = "  /*0000*/  FFMA R1, R2, R3, R4 ;\n"


def artefact(name: str, ptx: str, ttgir: str) -> Artefact:
    return Artefact(
        name,
        "sm_80",
        constants={"SPLIT": 64, "TILE": 16},
        dtypes={"Q": "bfloat16", "K": "uint8"},
        num_warps=4,
        num_stages=2,
        fusion=False,
        triton="3.9.0",
        ptxas="13.1",
        hash="abc",
        ttgir=ttgir,
        ptx=ptx,
        sass=SASS,
    )


KERNELS = (artefact("prefill", PREFILL, WALKS),)
SPLITS = (artefact("split", SPLIT, WALKS), artefact("combine", COMBINE, MERGES))
Change = dict[str, object]


def changed(kernel: Artefact, **changes: object) -> Artefact:
    """Fields of an artefact; a pair of texts replaces the first in a text that has it."""
    made = {}
    for name, value in changes.items():
        old = getattr(kernel, name)
        if isinstance(value, tuple):
            assert value[0] in old, value
            made[name] = old.replace(*value)
        else:
            made[name] = {**old, **value} if isinstance(value, dict) else value
    return replace(kernel, **made)  # type: ignore[arg-type]


def prefill(**changes: object) -> AuditSide:
    request = Request("prefill", "sm_80", Shape(4, 2, 16))
    return read_side(request, [changed(KERNELS[0], **changes)])


def decode(split: Change | None = None, combine: Change | None = None) -> AuditSide:
    """``split``, ``combine``: changes of the first and of the second kernel."""
    each = zip(SPLITS, (split or {}, combine or {}), strict=True)
    request = Request("decode", "sm_80", Shape(4, 2, 16))
    return read_side(request, [changed(kernel, **changes) for kernel, changes in each])

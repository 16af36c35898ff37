"""Two kinds of matrix instruction: equal by model only if nothing at all speaks against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from audit_cases import Planted, compared
from audit_cases import pair as audited

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.compare import KernelComparison, compare, worst
from kvparity.relations.audit.lanes import row_of
from kvparity.relations.audit.model import groups, products
from kvparity.relations.audit.ptx import Instruction
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.signature import Signature
from kvparity.relations.audit.views import AuditSide
from kvparity_kernels import tensor_cores

WALK = ("matrix instruction", "K chains", "loop")
MMA = next(
    each
    for each in tensor_cores.TABLE
    if (each.architecture, each.instruction) == ("sm_90", "mma.sync")
    and "bfloat16" in each.operands
)
Kernel = Callable[[Signature], Signature]


@pytest.fixture
def pair(
    sides: dict[Request, AuditSide], planted: dict[str, Planted]
) -> tuple[AuditSide, AuditSide]:
    """Prefill of 64 rows by wgmma, decode of 16 by mma.sync, on sm_90."""
    left, right = planted["block_m"].faulty
    assert compared(sides, (left, right)).verdict == "equal by model"
    return sides[left], sides[right]


def unlike(found: KernelComparison) -> dict[str, str]:
    return {each.name: each.verdict for each in found.fields if each.verdict != "same"}


def test_what_it_rests_on_is_said(pair: tuple[AuditSide, AuditSide]) -> None:
    found = compare(*pair)
    names = ("matrix instruction", "layout of reductions", "K chains", "loop")
    assert unlike(found) == dict.fromkeys(names, "equal by model")
    notes = {each.name: each.note for each in found.deciding}
    for words in ("wgmma on sm_90", "mma.sync on sm_90", MMA.source, "not measured"):
        assert words in notes["matrix instruction"]
    assert all(notes.values())
    assert "'same'" in found.meaning


@pytest.mark.parametrize("parameter", ["terms", "kept", "e_zero", "result"])
def test_another_parameter_of_one_kind_differs(
    parameter: str, pair: tuple[AuditSide, AuditSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(MMA.unit, **{parameter: getattr(MMA.unit, parameter) - 1})
    table = [replace(e, unit=other) if e == MMA else e for e in tensor_cores.TABLE]
    monkeypatch.setattr(tensor_cores, "TABLE", tuple(table))
    seen = unlike(compare(*pair))
    assert {seen[name] for name in WALK} == {"different"}


def test_one_instruction_of_two_architectures_is_two_kinds(
    sides: dict[Request, AuditSide], planted: dict[str, Planted]
) -> None:
    _, small = planted["block_m"].faulty
    _, old = audited("sm_80")
    assert sides[small].walk.families == sides[old].walk.families == {"mma.sync"}
    found = {each.name: each for each in compare(sides[old], sides[small]).fields}
    instruction = found["matrix instruction"]
    assert instruction.verdict == "different"
    assert instruction.left == instruction.right.replace("sm_90", "sm_80")
    assert "mma.sync on sm_80: L 8" in instruction.note


def test_a_kind_without_a_row_is_unknown(
    pair: tuple[AuditSide, AuditSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tuple(each for each in tensor_cores.TABLE if each != MMA)
    monkeypatch.setattr(tensor_cores, "TABLE", table)
    seen = unlike(compare(*pair))
    assert {seen[name] for name in WALK} == {"unknown"}


def chained(change: Callable[[Chain], Chain]) -> Kernel:
    def changed(walk: Signature) -> Signature:
        made = tuple(map(change, walk.chains))
        return replace(walk, chains=made, instructions=tuple(sorted({each.op for each in made})))

    return changed


def in_warps(walk: Signature) -> Signature:
    """The same instruction, with a row's columns over two warps."""
    reduces = tuple(
        replace(each, layout=each.layout.replace("[4, 1]", "[2, 2]"))
        for each in walk.structure.reduces
    )
    return replace(walk, structure=replace(walk.structure, reduces=reduces))


def beside(walk: Signature) -> Signature:
    """The same loop, and another instruction somewhere else."""
    return replace(walk, instructions=(*walk.instructions, "mma.m16n8k8.f32.bf16.bf16.f32"))


def more(walk: Signature) -> Signature:
    loop = (*walk.parts.loop, Instruction("neg.f32", ("%r9", "%r8")))
    return replace(walk, parts=replace(walk.parts, loop=loop))


CASES: dict[str, tuple[str, Kernel, str, str]] = {
    "another layout of rows": ("decode", in_warps, "unknown", "layout of reductions"),
    "products beside the walk": ("decode", beside, "unknown", "K chains"),
    "more than products": ("decode", more, "unknown", "loop"),
    "lanes with other neighbours along K": (
        "decode", lambda walk: replace(walk, k_widths=(4,)), "unknown", "K chains",
    ),
    "lanes that are not told": (
        "decode", lambda walk: replace(walk, k_widths=()), "unknown", "K chains",
    ),
    "K from the end": (
        "prefill", chained(lambda c: replace(c, b=c.b[::-1])), "unknown", "K chains",
    ),
    "an order along K that does not show": (
        "prefill", chained(lambda c: replace(c, b=())), "unknown", "K chains",
    ),
    "sums in float16": (
        "decode", chained(lambda c: replace(c, op=c.op.replace("f32", "f16"))), "unknown",
        "matrix instruction",
    ),
    "products of float16": (
        "decode", chained(lambda c: replace(c, op=c.op.replace("bf16", "f16"))), "different",
        "matrix instruction",
    ),
    "from what came before": (
        "decode", chained(lambda c: replace(c, start="carried")), "different", "K chains",
    ),
    "more steps": (
        "decode", chained(lambda c: replace(c, steps=c.steps + 1)), "different", "K chains",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_thing_that_speaks_against_it(name: str, pair: tuple[AuditSide, AuditSide]) -> None:
    side, change, verdict, field = CASES[name]
    prefill, decode = pair
    if side == "prefill":
        prefill = replace(prefill, walk=change(prefill.walk))
    else:
        decode = replace(decode, walk=change(decode.walk))
    found = compare(prefill, decode)
    assert found.verdict == verdict
    assert field in {each.name for each in found.deciding}


def test_the_worst_of_verdicts() -> None:
    assert worst(["same", "equal by model", "same"]) == "equal by model"
    assert worst(["equal by model", "unknown"]) == "unknown"
    assert worst(["unknown", "different", "equal by model"]) == "different"
    assert worst([]) == "same"


@pytest.mark.parametrize(
    ("op", "told"),
    [
        ("mma.m16n8k16.f32.bf16.bf16.f32", ("mma.sync", "bfloat16", 16)),
        ("wgmma.m64n64k8.f32.tf32.tf32.A in registers", ("wgmma", "tf32", 8)),
        ("wgmma.m64n64k32.f32.e4m3.e4m3", ("wgmma", "fp8e4nv", 32)),
        ("tcgen05.mma.kind::f16.m64n32[0x4080490]", ("tcgen05", "bfloat16", 16)),
        ("tcgen05.mma.kind::f16.m64n32[0x4080010]", ("tcgen05", "float16", 16)),
        ("tcgen05.mma.kind::f8f6f4.m64n32[0x4080490]", ("tcgen05", "fp8e5", 32)),
        ("tcgen05.mma.kind::f16.m64n32[0x4080480]", None),  # sums in float16
        ("tcgen05.mma.kind::f16.m64n32[0x4080090]", None),  # two formats
        ("tcgen05.mma.kind::f16.m64n32[0x4082490]", None),  # A is negated
        ("wgmma.m64n64k32.f32.e4m3.e5m2", None),
        ("mma.m16n8k16.f16.f16.f16.f16", None),
        ("mma.m16n8k16.f32.bf16.bf16.f16", None),
        ("fma.rn.f32", None),
    ],
)
def test_what_an_instruction_multiplies(op: str, told: tuple[str, str, int] | None) -> None:
    found = products(op)
    assert (found and (found.instruction, found.operand, found.depth)) == told


def test_groups_along_k() -> None:
    assert groups(16, 2, 8) == (8, 8, 8, 8)
    assert groups(8, 2, 16) == (8, 8)  # never over the end of an instruction
    assert groups(32, 1, 16) == (16, 16)


def mma(version: str, warps: str, shape: str) -> str:
    return (
        f"nvidia_mma(versionMajor = {version}, versionMinor = 0, warpsPerCTA = [4, {warps}], "
        f"instrShape = [{shape}])"
    )


def test_a_row_in_its_lanes() -> None:
    wide = row_of(mma("3", "1", "16, 32, 16"), 32)
    assert wide is not None
    assert wide.columns[1] == (2, 3, 10, 11, 18, 19, 26, 27)
    assert wide == row_of(mma("2", "1", "16, 8"), 32) == row_of(mma("3", "1", "16, 16, 16"), 32)
    two = row_of(mma("2", "2", "16, 8"), 32)
    assert two is not None
    assert (two.columns[1], two.columns[5]) == ((2, 3, 18, 19), (10, 11, 26, 27))
    assert row_of(mma("3", "2", "16, 16, 16"), 32) != two
    for columns, layout in (
        (32, "blocked(order = [1, 0])"), (8, mma("2", "2", "16, 8")), (16, TENSOR),
        (32, TENSOR.replace("[1, 0]", "[1, 1]")),
    ):  # fmt: skip
        assert row_of(layout, columns) is None


TENSOR = (
    "linear(register = [[0, 1], [0, 2], [0, 4], [0, 8]], lane = [[1, 0], [2, 0], [4, 0], [8, 0], "
    "[0, 16]], warp = [[16, 0], [32, 0]], block = [])"
)


def test_a_row_of_tensor_memory_in_its_lanes() -> None:
    found = row_of(TENSOR, 32)
    assert found is not None
    assert (found.apart, found.warps) == ((16,), 1)
    assert found.columns == (tuple(range(16)), tuple(range(16, 32)))
    turned = row_of(TENSOR.replace("[0, 1], [0, 2]", "[0, 2], [0, 1]"), 32)
    assert turned is not None
    assert turned.columns[0][:4] == (0, 2, 1, 3)
    shared = row_of(TENSOR.replace("[32, 0]]", "[0, 32]]"), 64)
    assert shared is not None
    assert (shared.warps, shared.columns[2][:2]) == (2, (32, 33))

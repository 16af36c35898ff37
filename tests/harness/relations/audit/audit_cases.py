"""Planted faults: a pair of sides that the audit must tell apart, and the same pair without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import kvparity_kernels
from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.views import AuditSide
from kvparity_kernels.order import ReductionOrder

SOURCE = Path(kvparity_kernels.__file__ or "").parent / "attention" / "kernels.py"
SHAPE = Shape(4, 2, 16)
FLOAT32 = replace(SHAPE, execution="float32", kv_cache="float32")
ORDER = ReductionOrder(split=128, tile=32)  # small kernels compile sooner
SMALL = ReductionOrder(split=64, tile=32)

Pair = tuple[Request, Request]


@dataclass(frozen=True)
class Planted:
    """``faulty`` must get ``verdict`` with ``fields`` among the deciding; ``sound`` is ``same``."""

    faulty: Pair
    sound: Pair
    verdict: str
    fields: frozenset[str]


def pair(arch: str, shape: Shape = SHAPE, order: ReductionOrder = ORDER) -> Pair:
    return Request("prefill", arch, shape, order), Request("decode", arch, shape, order)


def compared(sides: dict[Request, AuditSide], chosen: Pair) -> KernelComparison:
    return compare(sides[chosen[0]], sides[chosen[1]])


def mutate(folder: Path, name: str, *changes: tuple[str, str, int]) -> Path:
    """A copy of the kernels with texts replaced; each must occur exactly as often as stated."""
    text = SOURCE.read_text()
    for old, new, times in changes:
        assert text.count(old) == times, f"{old!r} occurs {text.count(old)} times in {SOURCE}"
        text = text.replace(old, new)
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


TF32 = (
    (
        "product(q, tl.trans(k), tl.zeros((BM, TILE), tl.float32), PIECE)",
        'tl.dot(q, tl.trans(k), input_precision="tf32")',
        1,
    ),
    (
        "product(p.to(q.dtype), v, acc * keep[:, None], PIECE)",
        'tl.dot(p.to(q.dtype), v, acc * keep[:, None], input_precision="tf32")',
        1,
    ),
)
NAIVE = (
    ("L_top = tl.fma(L, old, l * new)", "L_top = L * old + l * new", 1),
    (
        "A_top = tl.fma(A, tl.broadcast_to(old[:, None], A.shape), a * new[:, None])",
        "A_top = A * old[:, None] + a * new[:, None]",
        1,
    ),
)


def plant(folder: Path) -> dict[str, Planted]:
    """All faults, on sm_90."""
    prefill, decode = pair("sm_90")
    sound = (prefill, decode)

    def order(**changes: int) -> Pair:
        return prefill, replace(decode, order=replace(ORDER, **changes))

    def source(name: str, *changes: tuple[str, str, int]) -> Pair:
        return prefill, replace(decode, source=mutate(folder, name, *changes))

    def planted(faulty: Pair, verdict: str, *fields: str, sound: Pair = sound) -> Planted:
        return Planted(faulty, sound, verdict, frozenset(fields))

    float32 = pair("sm_90", FLOAT32, SMALL)
    tf32 = mutate(folder, "tf32", *TF32)
    naive = mutate(folder, "naive", *NAIVE)
    unfused = (replace(prefill, source=naive), replace(decode, source=naive))
    return {
        "tf32": planted(
            (float32[0], replace(float32[1], source=tf32)),
            "different",
            "input precision",
            sound=float32,
        ),
        "fusion": planted(
            (replace(unfused[0], fusion=True), unfused[1]),
            "different",
            "contraction",
            sound=unfused,
        ),
        "num_warps": planted(
            order(num_warps=8), "different", "matrix instruction", "layout of reductions"
        ),
        "exp": planted(
            source("exp", ("p = tl.exp2(s - shift[:, None])", "p = tl.exp(s - shift[:, None])", 1)),
            "different",
            "exp",
            "loop",
        ),
        "atomics": planted(
            source(
                "atomics",
                (
                    "tl.store(PART_L + at, l, mask=ok)",
                    "tl.atomic_add(PART_L + at, l, mask=ok)",
                    1,
                ),
            ),
            "different",
            "atomics",
        ),
        "tile": planted(order(tile=16), "different", "split, tile", "layout of reductions"),
        "block_m": planted(
            order(block_m=16), "equal by model", "matrix instruction", "K chains", "loop"
        ),
        "merge in another form": planted(source("naive decode", *NAIVE), "different", "merge"),
        "one merge of eight": planted(
            source(
                "fourth merge",
                (
                    "                M, L, A = merge(M, L, A, m, l, a)",
                    "                M, L, A = merge(M, L, A, m, tl.exp2(l) if j == 3 else l, a)",
                    1,
                ),
            ),
            "different",
            "merge",
        ),
    }

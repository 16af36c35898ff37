"""Whether two kinds of matrix instruction add alike, by the table of tensor cores.

A kernel's chains say which instructions it has, how deep each is along K, and where its chain
starts. The table says in which groups an instruction adds its products, and how it cuts them. Where
groups, cuts and starts are those of the other side, every sum is: by the model, on which no device
has been asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from kvparity.relations.audit.chains import Chain
from kvparity.relations.audit.words import SETTLED
from kvparity_kernels import tensor_cores
from kvparity_kernels.tensor_cores import FusedAdd, TensorCoreRow

_REGISTERS = re.compile(
    r"(mma|wgmma)\.m\d+n\d+k(\d+)\.(\w+)\.(\w+)\.(\w+)(?:\.(\w+))?(?:\.A in .*)?$"
)
_TENSOR = re.compile(r"tcgen05\.mma\.kind::(\w+)\.m\d+n\d+\[(0x[0-9a-f]+)\]$")
_DEPTH = {"f16": 16, "tf32": 8, "f8f6f4": 32}  # products along K of one tcgen05, by its kind
_TENSOR_OPERANDS = {
    "f16": ("float16", "bfloat16"),
    "tf32": ("", "", "tf32"),
    "f8f6f4": ("fp8e4nv", "fp8e5"),
}  # by the number in its descriptor
_OPERANDS = {
    "bf16": "bfloat16", "f16": "float16", "tf32": "tf32", "e4m3": "fp8e4nv", "e5m2": "fp8e5",
}  # fmt: skip
FLOAT32 = 23  # fraction bits
_BITS = {"bfloat16": 16, "float16": 16, "tf32": 32, "fp8e4nv": 8, "fp8e5": 8}


@dataclass(frozen=True)
class Products:
    """One kind of matrix instruction, as its text says it: float32 sums of ``operand`` products."""

    instruction: str
    operand: str
    depth: int


@dataclass(frozen=True)
class Sum:
    """How one kind of accumulator is summed: ``chunks`` are the products of each fused addition."""

    start: str
    operand: str
    unit: FusedAdd
    chunks: tuple[int, ...]


class MultipliesMatrices(Protocol):
    """What is read of one. ``k_widths``: ``ttgir.k_widths``."""

    @property
    def arch(self) -> str:
        """What it is compiled for."""

    @property
    def instructions(self) -> tuple[str, ...]:
        """All that multiply matrices."""

    @property
    def chains(self) -> tuple[Chain, ...]:
        """Its matrix products."""

    @property
    def k_widths(self) -> tuple[int, ...]:
        """How many neighbours along K a lane holds."""


@dataclass(frozen=True)
class Likeness:
    """``grounds``: what equal sums rest on, or empty; else ``doubt`` says why they may not be.

    ``differs``: the table says that they add in another way.
    """

    grounds: str = ""
    doubt: str = ""
    differs: bool = False


def products(op: str) -> Products | None:
    """The instruction that a chain names, or None if it is not known or does not sum in float32."""
    if found := _REGISTERS.match(op):
        name, depth, result, a, b, start = found.groups()
        if result != "f32" or a != b or start not in (None, "f32") or a not in _OPERANDS:
            return None
        return Products("mma.sync" if name == "mma" else name, _OPERANDS[a], int(depth))
    if found := _TENSOR.match(op):
        kind, bits = found[1], int(found[2], 16)
        names = dict(enumerate(_TENSOR_OPERANDS.get(kind, ())))
        result, a, b, negated = (bits >> 4 & 3, bits >> 7 & 7, bits >> 10 & 7, bits >> 13 & 3)
        if result != 1 or a != b or negated or not names.get(a):
            return None
        return Products("tcgen05", names[a], _DEPTH[kind])
    return None


def row(arch: str, found: Products) -> TensorCoreRow | None:
    """The table's row for it."""
    fitting = (
        each
        for each in tensor_cores.TABLE
        if (each.architecture, each.instruction) == (arch, found.instruction)
        and found.operand in each.operands
    )
    return next(fitting, None)


def groups(depth: int, steps: int, terms: int) -> tuple[int, ...]:
    """How many products each fused addition of a chain takes, in their order along K."""
    return tuple(min(terms, depth - k) for _ in range(steps) for k in range(0, depth, terms))


def add_alike(one: MultipliesMatrices, two: MultipliesMatrices) -> Likeness:
    """Whether the chains of two kernels give the same sums by the model."""
    sides = [_sums(each) for each in (one, two)]
    if doubts := [each for each in sides if isinstance(each, str)]:
        return Likeness(doubt=doubts[0])
    rows = [row for side in sides if isinstance(side, dict) for row in side.values()]
    told = "; ".join(dict.fromkeys(map(unit_words, rows)))
    if len({frozenset(side) for side in sides}) > 1:
        return Likeness(
            doubt=f"by the table of tensor cores they add otherwise: {told}", differs=True
        )
    sources = "; ".join(dict.fromkeys(each.source for each in rows))
    return Likeness(grounds=f"by the table of tensor cores ({told}; {sources}); {SETTLED}")


def _sums(kernel: MultipliesMatrices) -> dict[Sum, TensorCoreRow] | str:
    """How the accumulators of a kernel are summed, each with its row; or why that is not known."""
    found: dict[Sum, TensorCoreRow] = {}
    if set(kernel.instructions) != {chain.op for chain in kernel.chains}:
        return "not every matrix instruction is in a chain of the walk over tiles"
    for chain in kernel.chains:
        told = products(chain.op)
        if told is None:
            return f"{chain.op} is not read as a product with float32 sums"
        entry = row(kernel.arch, told)
        if entry is None:
            return (
                f"{told.instruction} of {told.operand} on {kernel.arch} is not in the table of "
                "tensor cores"
            )
        if doubt := _order_along_k(chain, told, kernel.k_widths):
            return doubt
        chunks = groups(told.depth, chain.steps, entry.unit.terms)
        found[Sum(chain.start, told.operand, entry.unit, chunks)] = entry
    return found


def unit_words(entry: TensorCoreRow) -> str:
    """``wgmma on sm_90: L 16, F 25, e_zero -133``."""
    unit = entry.unit
    cut = f"L {unit.terms}, F {unit.kept}, e_zero {unit.e_zero}"
    cut += f", result {unit.result}" if unit.result != FLOAT32 else ""
    return f"{entry.instruction} on {entry.architecture}: {cut}"


def _order_along_k(chain: Chain, told: Products, widths: Iterable[int]) -> str:
    """Why the groups of a chain may hold other products than those that follow each other."""
    if told.instruction == "mma.sync" or "in registers" in chain.op:
        natural = 32 // _BITS[told.operand]
        if set(widths) != {natural}:
            seen = " or ".join(map(str, sorted(set(widths)))) or "an unknown number of"
            return (
                f"of operands in registers a lane holds {seen} neighbours along K, not {natural}: "
                "a group may have other products"
            )
    if told.instruction != "mma.sync" and chain.steps > 1 and not chain.b:
        return f"the order along K of {told.instruction} does not show"
    if any(one >= two for one, two in pairwise(chain.b)):
        return f"{told.instruction} does not take K in ascending order"
    return ""

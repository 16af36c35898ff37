"""What a matrix instruction adds: its parameters by architecture and format of the operands.

Two public models, each tested on silicon by its authors, agree on these numbers: MMA-Sim
(arXiv 2511.10909, the package ``mmasim`` 2.1.1) and Khattak and Mikaitis (arXiv 2512.07004).
Accumulators are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Architecture = Literal["sm_80", "sm_89", "sm_90", "sm_100"]
Operand = Literal["bfloat16", "float16", "tf32", "fp8e4nv", "fp8e5"]
Instruction = Literal["mma.sync", "wgmma", "tcgen05"]

ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
OPERANDS: tuple[Operand, ...] = get_args(Operand)

LEAST_EXPONENT: dict[Operand, int] = {
    "bfloat16": -126,
    "float16": -14,
    "tf32": -126,
    "fp8e4nv": -6,
    "fp8e5": -14,
}
"""The exponent of a format's least normal number; subnormal numbers have it, too."""

_MMA_SIM = "MMA-Sim, arXiv 2511.10909"
_BOTH = f"{_MMA_SIM}; Khattak and Mikaitis, arXiv 2512.07004"


@dataclass(frozen=True)
class FusedAdd:
    """How one instruction adds products and its accumulator."""

    terms: int
    """L: how many products are added at once, with the accumulator."""
    kept: int
    """F: fraction bits kept of every term, below the greatest exponent of a group."""
    e_zero: int
    """The exponent that a term of value zero counts with."""
    result: int = 23
    """Fraction bits of the result."""


@dataclass(frozen=True)
class TensorCoreRow:
    """One row of the table."""

    architecture: Architecture
    instruction: Instruction
    operands: tuple[Operand, ...]
    unit: FusedAdd
    source: str


_SIXTEEN: tuple[Operand, ...] = ("bfloat16", "float16")
_EIGHT: tuple[Operand, ...] = ("fp8e4nv", "fp8e5")

TABLE: tuple[TensorCoreRow, ...] = (
    TensorCoreRow("sm_80", "mma.sync", _SIXTEEN, FusedAdd(8, 24, -132), _BOTH),
    TensorCoreRow("sm_80", "mma.sync", ("tf32",), FusedAdd(4, 24, -132), _BOTH),
    TensorCoreRow("sm_89", "mma.sync", _SIXTEEN, FusedAdd(8, 24, -132), _BOTH),
    TensorCoreRow("sm_89", "mma.sync", ("tf32",), FusedAdd(4, 24, -132), _BOTH),
    TensorCoreRow("sm_89", "mma.sync", _EIGHT, FusedAdd(16, 13, -132, result=13), _BOTH),
    TensorCoreRow("sm_90", "mma.sync", _SIXTEEN, FusedAdd(16, 25, -133), _BOTH),
    TensorCoreRow("sm_90", "mma.sync", ("tf32",), FusedAdd(8, 25, -133), _BOTH),
    TensorCoreRow("sm_90", "wgmma", _SIXTEEN, FusedAdd(16, 25, -133), _BOTH),
    TensorCoreRow("sm_90", "wgmma", ("tf32",), FusedAdd(8, 25, -133), _BOTH),
    TensorCoreRow("sm_90", "wgmma", _EIGHT, FusedAdd(32, 13, -133, result=13), _BOTH),
    TensorCoreRow("sm_100", "mma.sync", _SIXTEEN, FusedAdd(16, 25, -133), _MMA_SIM),
    TensorCoreRow("sm_100", "mma.sync", ("tf32",), FusedAdd(8, 25, -133), _MMA_SIM),
    TensorCoreRow("sm_100", "tcgen05", _SIXTEEN, FusedAdd(16, 25, -133), _MMA_SIM),
    TensorCoreRow("sm_100", "tcgen05", ("tf32",), FusedAdd(8, 25, -133), _MMA_SIM),
    TensorCoreRow("sm_100", "tcgen05", _EIGHT, FusedAdd(32, 25, -133), _MMA_SIM),
)

INSTRUCTIONS: dict[Architecture, tuple[Instruction, ...]] = {
    "sm_80": ("mma.sync",),
    "sm_89": ("mma.sync",),
    "sm_90": ("mma.sync", "wgmma"),
    "sm_100": ("mma.sync", "tcgen05"),
}
"""What a compiler can choose from."""


class UnmodelledError(NotImplementedError):
    """The table has no row for what a product needs."""


def unit(architecture: Architecture, operand: str) -> FusedAdd:
    """How ``architecture`` adds products of ``operand``, whichever instruction is compiled.

    Raises:
        UnmodelledError: an instruction that may be compiled is not in the table, or they differ.
    """
    rows = {
        e.instruction: e.unit
        for e in TABLE
        if e.architecture == architecture and operand in e.operands
    }
    missing = [each for each in INSTRUCTIONS[architecture] if each not in rows]
    if missing:
        raise UnmodelledError(
            f"products of {operand} on {architecture} are not modelled: "
            f"{' and '.join(missing)} with these operands is not in the table of tensor cores"
        )
    if len(set(rows.values())) > 1:
        raise UnmodelledError(
            f"products of {operand} on {architecture} are not modelled: {' and '.join(rows)} add "
            "differently, and the interpreter does not know which one is compiled"
        )
    return next(iter(rows.values()))

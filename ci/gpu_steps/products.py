"""Does this device add products as the table of tensor cores says, whichever instruction does it?

    python -m gpu_steps.products        on the CUDA device
    python -m gpu_steps.products --device cpu --arch sm_90 --rounds 1
                                        interpreted under the model: only shows that this works

Tiles of 64 rows on 4 warps and of 16 rows on 1 warp are compiled to the two kinds of instruction
that an architecture has. Each multiplies the same operands, random ones and those at every edge,
and each bit is compared with the model's. Parameters put wrong must differ, or nothing was shown.
One JSON document is printed last: verdict ``equal``, ``differs`` or ``void``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from gpu_steps.operands import KINDS, NAMES, Operands, operands
from kvparity_kernels import device_model, runtime, tensor_cores
from kvparity_kernels.fixed_arithmetic import Array
from kvparity_kernels.fused_products import dot
from kvparity_kernels.tensor_cores import (
    ARCHITECTURES,
    LEAST_EXPONENT,
    Architecture,
    FusedAdd,
    Operand,
)

SIDE = 64
TILES = ((64, 4), (16, 1))
"""Rows and warps: the first is compiled to the newer instruction, the second to mma.sync."""
FORMATS: tuple[Operand, ...] = ("bfloat16", "float16", "tf32")
_KINDS_OF_PTX = {
    "wgmma": r"\bwgmma\.mma_async",
    "tcgen05": r"\btcgen05\.mma",
    "mma.sync": r"\bmma\.sync",
}
_EXIT = {"equal": 0, "differs": 1, "void": 5}
Verdict = Literal["equal", "differs", "void"]


@dataclass(frozen=True)
class ProductsCompared:
    """One instruction and format beside the model.

    ``instruction``: what the compiled code has, or ``interpreter``. ``differing``: elements by kind
    of operands; ``first``: one of them. ``unseen``: parameters that could be put wrong unnoticed.
    """

    rows: int
    instruction: str
    operands: Operand
    elements: int
    differing: dict[str, int]
    first: str | None
    unseen: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every bit is the model's."""
        return not any(self.differing.values())


def multiplied(
    given: Operands, rows: int, warps: int, operand: Operand, device: str
) -> tuple[Tensor, str]:
    """What the device makes of them, and by which instruction."""
    from gpu_steps.product_kernel import multiply

    a, b, c = (each.to(device) for each in given)
    out = torch.empty_like(c)
    constants = {"ROWS": rows, "SIDE": SIDE, "K": a.shape[1], "TF32": operand == "tf32"}
    built = multiply[(SIDE // rows,)](
        a, b, c, out, **constants, num_warps=warps, enable_fp_fusion=False
    )
    if runtime.mode() == "interpreter":
        return out, "interpreter"
    return out.cpu(), instruction_of(built.asm["ptx"])


def instruction_of(ptx: str) -> str:
    """The kind of matrix instruction of a kernel; of several, all."""
    found = [kind for kind, pattern in _KINDS_OF_PTX.items() if re.search(pattern, ptx)]
    return " and ".join(found) or "none"


def wrong(unit: FusedAdd, operand: Operand) -> Iterator[tuple[str, FusedAdd]]:
    """Each parameter put wrong, with its name.

    The exponent of zero is below that of every product of two float16, so there it never counts.
    """
    yield "L", replace(unit, terms=unit.terms // 2)
    yield "L", replace(unit, terms=unit.terms * 2)
    fields = {"F": "kept", "result": "result"}
    if 2 * LEAST_EXPONENT[operand] < unit.e_zero:
        fields["e_zero"] = "e_zero"
    for name, field in fields.items():
        for step in (-1, 1):
            yield f"{name} {step:+d}", replace(unit, **{field: getattr(unit, field) + step})


def unit_of(arch: Architecture, instruction: str, operand: Operand) -> FusedAdd | None:
    """The table's, of an instruction; of the interpreter's the one that it computes."""
    if instruction == "interpreter":
        return tensor_cores.unit(arch, operand)
    rows = (
        each.unit
        for each in tensor_cores.TABLE
        if (each.architecture, each.instruction) == (arch, instruction) and operand in each.operands
    )
    return next(rows, None)


def compared(
    arch: Architecture, operand: Operand, tile: tuple[int, int], rounds: int, device: str
) -> ProductsCompared:
    """One tile and format: every kind of operands, ``rounds`` times."""
    rows, warps = tile
    differing = dict.fromkeys(KINDS, 0)
    unseen: set[str] | None = None
    first, seen, elements = None, set(), 0
    for kind in KINDS:
        for seed in range(rounds):
            given = operands(kind, operand, SIDE, 4 * NAMES[operand][2], seed)
            out, instruction = multiplied(given, rows, warps, operand, device)
            seen.add(instruction)
            if (unit := unit_of(arch, instruction, operand)) is None:
                continue
            right = _model(given, operand, unit)
            off = _off(out, right)
            elements += off.size
            differing[kind] += int(off.sum())
            if first is None and off.any():
                first = _words(kind, seed, out, off, right)
            others = dict(wrong(unit, operand))
            unseen = {
                name
                for name in (others if unseen is None else unseen)
                if not _off(out, _model(given, operand, others[name])).any()
            }
    return ProductsCompared(
        rows, " or ".join(sorted(seen)), operand, elements, differing, first,
        tuple(sorted(unseen if unseen is not None else {"everything"})),
    )  # fmt: skip


def _model(given: Operands, operand: Operand, unit: FusedAdd) -> Array:
    a, b, c = given
    return dot(a.float().numpy(), b.float().numpy(), c.numpy(), operand, unit)


def _off(out: Tensor, model: Array) -> Array:
    off: Array = out.numpy().view(np.int32) != model.view(np.int32)
    return off


def _words(kind: str, seed: int, out: Tensor, off: Array, model: Array) -> str:
    row, column = np.argwhere(off)[0]
    got, told = (x.view(np.uint32)[row, column] for x in (out.numpy(), model))
    return f"{kind}, seed {seed}, row {row}, column {column}: {got:#010x}, the model {told:#010x}"


def verdict(found: Sequence[ProductsCompared], arch: Architecture) -> Verdict:
    """``void`` where an instruction was not asked, or a wrong parameter would not have shown."""
    if any(not each.equal for each in found):
        return "differs"
    asked = {each.instruction for each in found}
    all_kinds = asked == {"interpreter"} or asked == set(tensor_cores.INSTRUCTIONS[arch])
    shown = all_kinds and all(each.elements and not each.unseen for each in found)
    return "equal" if shown else "void"


def main(argv: Sequence[str] | None = None) -> int:
    """Multiply and compare; 0 equal, 1 differs, 3 no such device, 5 nothing was shown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--arch", choices=ARCHITECTURES, help="on the CPU: whose model")
    parser.add_argument("--rounds", type=int, default=8, help="times each kind of operands")
    args = parser.parse_args(argv)
    if (args.device == "cpu") != (args.arch is not None):
        parser.error("--arch belongs to --device cpu, which needs it")
    arch = args.arch or here()
    if arch not in ARCHITECTURES:
        print(f"{arch} is not in the table of tensor cores", file=sys.stderr)
        return 3
    runtime.select(args.device)
    with device_model.using(args.arch):
        found = [
            compared(arch, operand, tile, args.rounds, args.device)
            for operand in FORMATS
            for tile in TILES
        ]
    answer = verdict(found, arch)
    document: dict[str, JsonValue] = {
        "verdict": answer,
        "architecture": arch,
        "rows": [{**asdict(each), "unseen": list(each.unseen)} for each in found],
    }
    print(json.dumps(document))
    return _EXIT[answer]


def here() -> str:
    """The architecture of the CUDA device."""
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


if __name__ == "__main__":
    sys.exit(main())

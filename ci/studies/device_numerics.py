"""Does the model of matrix instructions give the bits that MMA-Sim gives?

    python ci/studies/device_numerics.py               a Markdown table
    python ci/studies/device_numerics.py --json        one JSON document
    python ci/studies/device_numerics.py --elements N  at least N for each instruction and format

Both are asked for ``c + a @ b`` with K of two or three groups. Elements are compared by their bits.
No GPU is used: MMA-Sim was tested on silicon by its authors, this model is tested against it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import mmasim.nv_ptx as silicon
import numpy as np

from kvparity_kernels.fused_products import dot
from kvparity_kernels.tensor_cores import TABLE, FusedAdd, Operand, TensorCoreRow

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_steps.operands import KINDS, NAMES, Operands, operands

ARCHITECTURES = {
    "sm_80": "Ampere",
    "sm_89": "Ada Lovelace",
    "sm_90": "Hopper",
    "sm_100": "Blackwell",
}


def simulator(entry: TensorCoreRow, operand: Operand) -> silicon.MMA:
    """MMA-Sim's object for an instruction."""
    name, _, k = NAMES[operand]
    architecture = ARCHITECTURES[entry.architecture]
    if entry.instruction == "mma.sync":
        return silicon.MMA(architecture, f"m16n8k{k}.f32.{name}.{name}.f32")
    if entry.instruction == "wgmma":
        return silicon.WGMMA(architecture, f"m64n64k{k}.f32.{name}.{name}")
    kind = {"tf32": "tf32", "bf16": "f16", "f16": "f16"}.get(name, "f8f6f4")
    return silicon.TCGen05MMA(architecture, f"m64n64k{k}.kind::{kind}.f32.{name}.{name}")


def differing(
    entry: TensorCoreRow, operand: Operand, given: Operands, unit: FusedAdd | None = None
) -> int:
    """Elements whose bits are not MMA-Sim's; ``unit``: other parameters than the table's."""
    a, b, c = given
    step = NAMES[operand][2]
    simulated, total = simulator(entry, operand), c
    for k in range(0, a.shape[1], step):
        total = simulated(a[:, k : k + step], b[k : k + step], total)
    ours = dot(a.float().numpy(), b.float().numpy(), c.numpy(), operand, unit or entry.unit)
    return int((ours.view(np.int32) != total.numpy().view(np.int32)).sum())


def pairs() -> Iterator[tuple[TensorCoreRow, Operand]]:
    """Every row of the table with each of its formats."""
    return ((entry, operand) for entry in TABLE for operand in entry.operands)


def count(
    entry: TensorCoreRow, operand: Operand, elements: int, side: int = 128
) -> dict[str, list[int]]:
    """Per kind of operands: elements compared, elements that differ."""
    rounds = -(-elements // (side * side * len(KINDS)))
    found = {}
    for kind in KINDS:
        given = (operands(kind, operand, side, 2 * NAMES[operand][2], s) for s in range(rounds))
        found[kind] = [rounds * side * side, sum(differing(entry, operand, x) for x in given)]
    return found


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--elements", type=int, default=1_000_000)
    args = parser.parse_args()
    rows = []
    for entry, operand in pairs():
        kinds = count(entry, operand, args.elements)
        compared, off = (sum(each[i] for each in kinds.values()) for i in (0, 1))
        name = {"architecture": entry.architecture, "instruction": entry.instruction}
        rows.append(
            {**name, "operands": operand, "unit": asdict(entry.unit), "elements": compared}
            | {
                "differing": off,
                "kinds": {k: {"elements": n, "differing": d} for k, (n, d) in kinds.items()},
            }
        )
    if args.json:
        print(json.dumps({"mmasim": version("mmasim"), "rows": rows}, indent=1))
        return
    print("| architecture | instruction | operands | elements | differing |\n|---|---|---|--:|--:|")
    for row in rows:
        print(
            "| "
            + " | ".join(
                str(row[k])
                for k in ("architecture", "instruction", "operands", "elements", "differing")
            )
            + " |"
        )


if __name__ == "__main__":
    main()

"""What the programs that compile for absent GPUs share. They run with ``TRITON_INTERPRET=0``."""

from __future__ import annotations

import re

import torch
from fma_order import fma_order

from kvparity.relations.audit.build import compile_launch
from kvparity.relations.audit.capture import Launch

# Instructions to look for in the PTX. A product or sum without ".rn" may be contracted by ptxas.
PATTERNS = {
    "contractable": r"\b(?:mul|add|sub)(?:\.ftz)?\.f32(?:x2)?\b",
    "rounded": r"\b(?:mul|add|sub)\.rn(?:\.ftz)?\.f32(?:x2)?\b",
    "fma": r"\bfma\.rn(?:\.ftz)?\.f32(?:x2)?\b",
    "exact_division": r"\bdiv\.rn(?:\.ftz)?\.f32(?:x2)?\b",
    "loose_division": r"\bdiv\.(?:full|approx)\S*",
    "tf32": r"tf32",
    "atomics": r"\b(?:atom|red)\.\S*",
    "wide_loads": r"\bld\.global\S*v4|\bcp\.async\.cg\S* .*0x10",
    "mma": r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\S+",
}


def facts(launch: Launch, arch: str, *, fusion: bool = False) -> dict[str, list[str]]:
    """Compile a launch, and list the distinct instructions that match each pattern."""
    built = compile_launch(launch, arch, fusion)
    code = re.sub(r"//[^\n]*", "", built.asm["ptx"])
    found = {name: sorted(set(re.findall(p, code))) for name, p in PATTERNS.items()}
    return found | {"fma_order": fma_order(code)}


def empty(*size: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(*size, dtype=dtype, device="meta")

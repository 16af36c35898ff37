"""What the programs that compile for absent GPUs share. They run with ``TRITON_INTERPRET=0``."""

from __future__ import annotations

import re
from typing import Any

from kvparity_kernels.launch import Kernel

# isort: split
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

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


def facts(
    kernel: Kernel,
    types: dict[str, str],
    constants: dict[str, Any],
    capability: int,
    *,
    fusion: bool = False,
    num_warps: int = 4,
    num_stages: int = 2,
) -> dict[str, list[str]]:
    """Compile as ``launch`` would, and list the distinct instructions that match each pattern.

    ``types`` and ``constants`` (None for a pointer that is not given) together name all parameters.
    Aligned pointers are promised to be, scalars are not specialised.
    """
    names = kernel.parameters
    aligned = {n for n in kernel.pointers - kernel.unaligned if n in types}
    source = ASTSource(
        kernel.function,
        {n: types.get(n, "constexpr") for n in names},
        constexprs={n: constants[n] for n in names if n not in types},
        attrs={(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in aligned},
    )
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": fusion}
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    code = re.sub(r"//[^\n]*", "", built.asm["ptx"])
    return {name: sorted(set(re.findall(p, code))) for name, p in PATTERNS.items()}

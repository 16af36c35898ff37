"""Compile every operation for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``; the arguments are compute capabilities.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from kvparity_kernels.digest import kernels as digest
from kvparity_kernels.embedding import kernels as embedding
from kvparity_kernels.launch import Kernel
from kvparity_kernels.linear import kernels as linear
from kvparity_kernels.logprob import kernels as logprob
from kvparity_kernels.norm import kernels as norm
from kvparity_kernels.overrides import kernels as overrides
from kvparity_kernels.rope import kernels as rope
from kvparity_kernels.swiglu import kernels as swiglu

# isort: split
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

LINEAR = {"N": 1000, "K": 512, "BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "rows": "i32"}
SIZES = ("rows", "columns", "depth", "a_batch", "a_row", "a_k", "b_batch", "b_k", "b_column")
MATMUL = dict.fromkeys(SIZES, "i32") | {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
CASES: dict[str, tuple[Kernel, dict[str, Any]]] = {
    "linear bf16": (
        linear.linear,
        {"X": "*bf16", "W": "*bf16", "BIAS": "*bf16", "Y": "*bf16"} | LINEAR,
    ),
    "linear fp32": (
        linear.linear,
        {"X": "*fp32", "W": "*fp32", "BIAS": None, "Y": "*fp32"} | LINEAR,
    ),
    "norm": (
        norm.rms_norm,
        {"X": "*bf16", "W": "*bf16", "Y": "*bf16", "eps": "fp32", "H": 5000, "BLOCK": 4096},
    ),
    "tables": (
        rope.tables,
        {"POSITIONS": "*i64", "INV_FREQ": "*fp32", "COS": "*fp32", "SIN": "*fp32"}
        | {"total": "i32", "HALF": 64, "BLOCK": 1024},
    ),
    "rotate": (
        rope.rotate,
        {"X": "*bf16", "COS": "*fp32", "SIN": "*fp32", "Y": "*bf16", "x_token": "i32"}
        | {"x_head": "i32", "HEADS": 6, "HALF": 48, "BLOCK_H": 8, "BLOCK_D": 64},
    ),
    "swiglu": (
        swiglu.swiglu,
        {"GATE": "*bf16", "UP": "*bf16", "Y": "*bf16", "gate_stride": "i32", "up_stride": "i32"}
        | {"W": 3000, "BLOCK": 1024},
    ),
    "embed": (
        embedding.embed,
        {"IDS": "*i64", "W": "*bf16", "Y": "*bf16", "w_stride": "i32"}
        | {"V": 1000, "H": 512, "BLOCK": 512},
    ),
    "logprob": (
        logprob.logprob,
        {"LOGITS": "*bf16", "TARGETS": "*i64", "Y": "*fp32", "stride": "i32"}
        | {"temperature": "fp32", "V": 50257, "BLOCK": 1024},
    ),
    "matmul bf16": (overrides.matmul, {"A": "*bf16", "B": "*bf16", "Y": "*bf16"} | MATMUL),
    "matmul fp32": (overrides.matmul, {"A": "*fp32", "B": "*fp32", "Y": "*fp32"} | MATMUL),
    "row_sum": (
        overrides.row_sum,
        {"X": "*bf16", "Y": "*bf16", "width": "i32", "divisor": "fp32", "BLOCK": 1024},
    ),
    "softmax": (
        overrides.softmax,
        {"X": "*bf16", "Y": "*bf16", "width": "i32", "LOG": False, "BLOCK": 1024},
    ),
    "softmax, logarithm": (
        overrides.softmax,
        {"X": "*fp32", "Y": "*fp32", "width": "i32", "LOG": True, "BLOCK": 1024},
    ),
    "digest": (
        digest.row_digest,
        {"X": "*i16", "Y": "*i64", "stride": "i32", "W": 50257, "MASK": 0xFFFF, "BLOCK": 1024},
    ),
}


def build(kernel: Kernel, arguments: dict[str, Any], capability: int, fusion: bool = False) -> Any:
    """Compile as ``launch`` would: aligned pointers are promised to be, scalars are not."""
    names = kernel.function.arg_names
    constants = {n: v for n, v in arguments.items() if not isinstance(v, str)}
    signature = {n: "constexpr" if n in constants else arguments[n] for n in names}
    aligned = {n for n in kernel.pointers - kernel.unaligned if n not in constants}
    attributes = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in aligned}
    source = ASTSource(kernel.function, signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": fusion}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


# Instructions to look for in the PTX. A product or sum without ".rn" may be contracted by ptxas.
PATTERNS = {
    "atomics": r"\b(?:atom|red)\.",
    "mma": r"\b(?:wgmma\.mma_async|mma|tcgen05\.mma)\.\S*",
    "tf32": r"tf32",
    "fma": r"\bfma\.\S*f32\b",
    "loose": r"\b(?:mul|add|sub)(?:\.ftz)?\.f32\b",
}


def facts(ptx: str) -> dict[str, list[str]]:
    """The distinct instructions that match each pattern."""
    return {name: sorted(set(re.findall(p, ptx))) for name, p in PATTERNS.items()}


def main() -> None:
    """Print ``{case: {capability: facts}}``, and ``rotate`` once more with contraction allowed."""
    result: dict[str, dict[str, Any]] = {}
    for name, (kernel, arguments) in CASES.items():
        for capability in sys.argv[1:]:
            built = build(kernel, arguments, int(capability))
            result.setdefault(name, {})[capability] = facts(built.asm["ptx"])
    kernel, arguments = CASES["rotate"]
    contracted = build(kernel, arguments, int(sys.argv[1]), fusion=True)
    result["rotate, contracted"] = {sys.argv[1]: facts(contracted.asm["ptx"])}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

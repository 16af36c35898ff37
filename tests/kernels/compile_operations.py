"""Compile every operation for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``; the arguments are compute capabilities.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from compile_common import facts

from kvparity_kernels.digest import kernels as digest
from kvparity_kernels.embedding import kernels as embedding
from kvparity_kernels.launch import Kernel
from kvparity_kernels.linear import kernels as linear
from kvparity_kernels.logprob import kernels as logprob
from kvparity_kernels.norm import kernels as norm
from kvparity_kernels.overrides import kernels as overrides
from kvparity_kernels.rope import kernels as rope
from kvparity_kernels.swiglu import kernels as swiglu

LINEAR = {"N": 1000, "K": 512, "BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "rows": "i32"}
LINEAR["BAND"] = 8
SIZES = ("rows", "columns", "depth", "a_batch", "a_row", "a_k", "b_batch", "b_k", "b_column")
MATMUL = dict.fromkeys(SIZES, "i32") | {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
PARTS = {"TOPS": "*fp32", "SUMS": "*fp32", "stride": "i32", "temperature": "fp32"}
PARTS |= {"V": 50257, "COUNT": 13}
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
        {"LOGITS": "*bf16", "TARGETS": "*i64", "Y": "*fp32"} | PARTS,
    ),
    "logprob, parts": (logprob.parts, {"LOGITS": "*bf16", "PART": 4096} | PARTS),
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


def look(name: str, capability: int, fusion: bool = False) -> dict[str, list[str]]:
    """Compile one case."""
    kernel, arguments = CASES[name]
    types = {n: v for n, v in arguments.items() if isinstance(v, str)}
    return facts(kernel, types, arguments, capability, fusion=fusion)


def main() -> None:
    """Print ``{case: {capability: facts}}``, and ``rotate`` once more with contraction allowed."""
    capabilities = [int(each) for each in sys.argv[1:]]
    result: dict[str, dict[str, Any]] = {
        name: {str(each): look(name, each) for each in capabilities} for name in CASES
    }
    first = capabilities[0]
    result["rotate, contracted"] = {str(first): look("rotate", first, fusion=True)}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()

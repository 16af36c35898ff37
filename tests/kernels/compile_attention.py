"""Compile the attention kernels for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``; the arguments are compute capabilities. "contraction" entries are
compiled for 9.0 with contraction allowed, as a control.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch

from kvparity_kernels import launch as launcher
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

# isort: split
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

calls: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []


def launch(kernel: Any, grid: Any, num_warps: int, num_stages: int = 2, **arguments: Any) -> None:
    options = {"num_warps": num_warps, "num_stages": num_stages}
    calls.append((kernel, arguments, options))


def compile_call(kernel: Any, arguments: dict[str, Any], options: dict[str, Any], cc: int) -> str:
    kinds = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32", torch.int64: "i64"}
    signature: dict[str, str] = {}
    aligned = {}
    for place, name in enumerate(kernel.parameters):
        value = arguments[name]
        if name in kernel.constexprs:
            signature[name] = "constexpr"
        elif name in kernel.pointers:
            signature[name] = "*" + kinds[value.dtype]
            if name not in kernel.unaligned:
                aligned[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    source = ASTSource(
        kernel.function,
        signature,
        constexprs={name: arguments[name] for name in kernel.constexprs},
        attrs=aligned,
    )
    ptx: str = triton.compile(source, target=GPUTarget("cuda", cc, 32), options=options).asm["ptx"]
    return ptx


def facts(ptx: str) -> dict[str, Any]:
    code = re.sub(r"//[^\n]*", "", ptx)
    return {
        "contractable": len(re.findall(r"\b(?:mul|add|sub)(?:\.ftz)?\.f32(?:x2)?\b", code)),
        "rounded": len(re.findall(r"\b(?:mul|add|sub)\.rn(?:\.ftz)?\.f32(?:x2)?\b", code)),
        "fma": len(re.findall(r"\bfma\.rn(?:\.ftz)?\.f32(?:x2)?\b", code)),
        "exact_division": len(re.findall(r"\bdiv\.rn(?:\.ftz)?\.f32(?:x2)?\b", code)),
        "loose_division": len(re.findall(r"\bdiv\.(?:full|approx)", code)),
        "tf32": code.count("tf32"),
        "atomics": len(re.findall(r"\b(?:atom|red)\.(?:global|gpu|relaxed)", code)),
        "wide_loads": len(re.findall(r"\bld\.global\S*v4|\bcp\.async\.cg\S* .*0x10", code)),
        "mma": sorted(set(re.findall(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\S+", code))),
    }


def main() -> None:
    launcher.launch = launch  # type: ignore[assignment]  # the replacement takes what is used
    order = ReductionOrder()
    q = torch.zeros(2, 8, 128, dtype=torch.bfloat16)
    lens = torch.ones(2, dtype=torch.int32)
    kv = KeysValues(q[:, :2], q[:, :2], lens, block_table=lens[:, None], page=16)
    attend_prefill(q, kv, q_starts=lens, q_lens=lens, max_q=1, scale=1.0, order=order)
    attend_decode(q, kv, max_kv=1, scale=1.0, order=order)
    result: dict[str, dict[str, Any]] = {}
    for cc in map(int, sys.argv[1:]):
        result[str(cc)] = {}
        for kernel, arguments, options in calls:
            strict = options | {"enable_fp_fusion": False}
            result[str(cc)][kernel.name] = facts(compile_call(kernel, arguments, strict, cc))
    kernel, arguments, options = calls[2]
    loose = options | {"enable_fp_fusion": True}
    result["contraction"] = {kernel.name: facts(compile_call(kernel, arguments, loose, 90))}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

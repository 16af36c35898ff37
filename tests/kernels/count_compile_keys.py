"""Count what Triton would compile for attention over lengths 1 .. 300; prints JSON.

A program of its own, not a test: it needs compiled mode (``TRITON_INTERPRET=0``), though no GPU.
The launcher is replaced by one that asks Triton's own binder for the key under which a compiled
kernel would be looked up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import torch

from kvparity_kernels import launch as launcher
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

# isort: split
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature

BACKEND = make_backend(GPUTarget("cuda", 90, 32))
found: dict[str, set[str]] = defaultdict(set)
binders: dict[str, Any] = {}


def note(name: str, function: Any, arguments: dict[str, Any]) -> None:
    if name not in binders:
        binders[name] = create_function_from_signature(function.signature, function.params, BACKEND)
    _, specialization, options = binders[name](**arguments)
    found[name].add(str(specialization) + str(options))


def launch(kernel: Any, grid: Any, **arguments: Any) -> None:
    note(kernel.name, kernel.function, arguments)
    note("plain " + kernel.name, triton.jit(kernel.function.fn), arguments)


def main() -> None:
    launcher.launch = launch  # type: ignore[assignment]  # the replacement takes what is used
    order = ReductionOrder()
    slots = torch.zeros(1000, 2, 32, dtype=torch.bfloat16)
    q = torch.zeros(300, 4, 32, dtype=torch.bfloat16)
    for n in range(1, 301):
        # One sequence and several; an offset of 4 bytes; caches of other sizes and head counts.
        batch = 1 + n % 3
        lens = torch.full((batch + 1,), n, dtype=torch.int32)[1:]
        kv = KeysValues(
            slots[: n * 3], slots[: n * 3], lens, starts=torch.zeros(batch + 1).long()[1:]
        )
        rest = {"scale": 1 / n, "order": order}
        attend_prefill(q, kv, q_starts=lens, q_lens=lens, max_q=n, **rest)
        attend_decode(q[:batch], kv, max_kv=n, **rest)
    print(json.dumps({name: len(keys) for name, keys in found.items()}))


if __name__ == "__main__":
    main()

"""Compile the attention kernels for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``. Prints ``{form: {capability: {kernel: facts}}}``; "contraction" is
compiled for 9.0 with contraction allowed, as a control.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from compile_common import facts

from kvparity_kernels import launch as launcher
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.launch import Kernel
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, poisoned

Call = tuple[Kernel, dict[str, Any], dict[str, int]]
CAPABILITIES = (80, 90, 100)
FORMS: dict[str, tuple[int, ...]] = {  # plain floats, or a store and all that a model may have
    "plain": CAPABILITIES,
    "fp8_e4m3(head)": (80, 90),
    "int4(32)": (90,),
    "int8(16)": (100,),
    "fp8_e5m2(tensor)": (80,),
}
TYPES = {
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.int8: "i8",
    torch.uint8: "u8",
}


def calls(form: str) -> list[Call]:
    """What prefill and decode launch over a cache in pages of 16."""
    seen: list[Call] = []

    def note(kernel: Kernel, grid: Any, **named: Any) -> None:
        options = {name: named.pop(name) for name in ("num_warps", "num_stages") if name in named}
        seen.append((kernel, named, options))

    launcher.launch = note  # type: ignore[assignment]  # the replacement takes what is used
    plain = form == "plain"
    dim, order = (128, ReductionOrder()) if plain else (32, ReductionOrder(split=64, tile=32))
    q = torch.zeros(2, 8, dim, dtype=torch.bfloat16)
    lens = torch.ones(2, dtype=torch.int32)
    format = None if plain else StoreFormat.parse(form)
    codes, scales = poisoned(64, 2, dim, format or StoreFormat("bfloat16"), "cpu")
    kv = KeysValues(
        codes,
        codes,
        lens,
        block_table=lens[:, None],
        page=16,
        format=format,
        k_scale=scales,
        v_scale=scales,
        ring=0 if plain else 20,
    )
    rules: dict[str, Any] = {}
    if not plain:
        rules = {"window": 20, "softcap": 30.0, "sinks": torch.zeros(8), "first_key": lens}
    more = {"scale": 1.0, "order": order, **rules}
    attend_prefill(q, kv, q_starts=lens, q_lens=lens, max_q=1, **more)
    attend_decode(q, kv, max_kv=1, **more)
    return seen


def look(call: Call, capability: int, fusion: bool = False) -> dict[str, list[str]]:
    """Compile one call."""
    kernel, arguments, options = call
    types = {}
    for name in kernel.parameters:
        value = arguments[name]
        if name in kernel.scalars:
            types[name] = "fp32" if isinstance(value, float) else "i32"
        elif name in kernel.pointers and value is not None:
            types[name] = "*" + TYPES[value.dtype]
    return facts(kernel, types, arguments, capability, fusion=fusion, **options)


def main() -> None:
    """Compile all forms."""
    result: dict[str, dict[str, Any]] = {}
    for form, capabilities in FORMS.items():
        for capability in capabilities:
            found = {call[0].name: look(call, capability) for call in calls(form)}
            result.setdefault(form, {})[str(capability)] = found
    call = calls("plain")[2]
    result["contraction"] = {"90": {call[0].name: look(call, 90, fusion=True)}}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Compile the attention kernels for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``. Prints ``{form: {arch: {kernel: facts}}}``; "contraction" is compiled
for sm_90 with contraction allowed, as a control.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from compile_common import empty, facts

from kvparity.relations.audit.capture import Launch, captured
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, poisoned

ARCHS = ("sm_80", "sm_90", "sm_100")
FORMS: dict[str, tuple[str, ...]] = {  # plain floats, or a store and all that a model may have
    "plain": ARCHS,
    "fp8_e4m3(head)": ("sm_80", "sm_90"),
    "int4(32)": ("sm_90",),
    "int8(16)": ("sm_100",),
    "fp8_e5m2(tensor)": ("sm_80",),
}


@dataclass(frozen=True)
class Rules:
    """What a layer of a model may have beside its keys."""

    window: int = 0
    softcap: float = 0.0
    sinks: torch.Tensor | None = None
    first_key: torch.Tensor | None = None


def launches(form: str) -> list[Launch]:
    """What prefill and decode launch over a cache in pages of 16."""
    plain = form == "plain"
    dim, order = (128, ReductionOrder()) if plain else (32, ReductionOrder(split=64, tile=32))
    q, lens = empty(2, 8, dim), empty(2, dtype=torch.int32)
    format = None if plain else StoreFormat.parse(form)
    codes, scales = poisoned(64, 2, dim, format or StoreFormat("bfloat16"), "meta")
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
    rules = Rules() if plain else Rules(20, 30.0, empty(8, dtype=torch.float32), lens)
    more = {"scale": 1.0, "order": order, **vars(rules)}
    with captured() as seen:
        attend_prefill(q, kv, q_starts=lens, q_lens=lens, max_q=1, **more)
        attend_decode(q, kv, max_kv=1, **more)
    return seen


def main() -> None:
    """Compile all forms."""
    result = {
        form: {
            arch: {launch.kernel.name: facts(launch, arch) for launch in launches(form)}
            for arch in archs
        }
        for form, archs in FORMS.items()
    }
    combine = launches("plain")[2]
    loose = facts(combine, "sm_90", fusion=True)
    print(json.dumps({**result, "contraction": {"sm_90": {combine.kernel.name: loose}}}))


if __name__ == "__main__":
    main()

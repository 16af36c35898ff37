"""Small decoders for traced programs, and their paths run over fixed tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from kvparity.plan.paths import build
from kvparity.plan.schedule import Plan
from kvparity.plan.workload import Prompts
from kvparity.record.execute import Record, run
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_contracts.paths import PathName
from kvparity_kernels.order import ReductionOrder

SHAPE = {
    "family": "qwen3", "vocab": 64, "hidden": 32, "layers": 1, "heads": 4, "kv_heads": 2,
    "head_dim": 16, "intermediate": 32, "max_positions": 96, "rms_eps": 1e-6, "qk_norm": True,
    "tied": True,
}  # fmt: skip
WINDOWS = {"layers": 2, "sliding_window": 5, "layer_types": ("sliding", "full")}
SHARED = {
    "layers": 3, "sliding_window": 5, "layer_types": ("sliding", "full", "sliding"),
    "kv_shared_layers": 1, "shared_head_dim": 8, "attention_sinks": True, "attention_softcap": 5.0,
}  # fmt: skip
FEATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"qkv_bias": True, "o_bias": True, "tied": False}, {}),
    "shared": (SHARED, {"kv_cache": "bfloat16"}),
    "coded-rings": (WINDOWS, {"ring": True, "kv_cache": "int8(8)", "heads_first": True}),
    "rings-alone": ({"sliding_window": 5}, {"ring": True, "kv_cache": "fp8_e4m3(head)"}),
}


@cache
def decoder(name: str = "plain") -> DecoderSubject:
    shape, more = FEATURES[name]
    config = DecoderShape(**(SHAPE | shape))
    return DecoderSubject(
        config,
        seeded(config, 0, torch.float32, torch.device("cpu")),
        order=ReductionOrder(split=32, tile=16, block_m=16),
        twin=True,
        **({"kv_cache": "float32"} | more),
    )


def prompts(*lengths: int, generate: int = 4) -> Prompts:
    generator = torch.Generator().manual_seed(7)
    made = tuple(tuple(torch.randint(0, 64, (n,), generator=generator).tolist()) for n in lengths)
    names = tuple(f"s{i}" for i in range(len(lengths)))
    return Prompts("w", names, made, generate)


def tokens(of: Prompts) -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return [
        [*p, *torch.randint(0, 64, (of.generate,), generator=generator).tolist()]
        for p in of.prompts
    ]


def plan(path: str, of: Prompts) -> Plan:
    return build(PathName(path), of, seed=0)


def computed(subject: Subject, path: str, of: Prompts) -> Record:
    return run(subject, plan(path, of), tokens(of), temperatures=[1.0])

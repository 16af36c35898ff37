"""Stores: what is read of codes and scales is not what was written."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODING, Control
from kvparity_contracts.paths import PathName

STORES = (
    Control(
        "tile-by-store",
        "decode of a cache with codes has another tile",
        "sgl-project/sglang#25790, vllm-project/vllm#54035",
        ("decoder",),
        "a cache that stores codes, a path that decodes, and a sequence longer than one tile",
        paths=DECODING,
        keys="tile",
        features=("order", "codes"),
        side="both",
    ),
    Control(
        "scale-ignored-in-prefill",
        "prefill forgets the scales of keys and values",
        "flashinfer-ai/flashinfer#4979",
        ("decoder",),
        "a cache in fp8, and a path that decodes",
        paths=DECODING,
        features=("fp8",),
        side="both",
    ),
    Control(
        "scale-from-first-input",
        "the scales of a layer are fixed by its first real input",
        "vllm-project/vllm#11906",
        ("decoder",),
        "a cache in fp8, and a path that computes other tokens first",
        paths=DECODING,
        features=("fp8",),
        path=PathName("batched"),
        side="both",
    ),
    Control(
        "dequant-rounds",
        "code times scale is rounded to bfloat16 in the kernels",
        "vllm-project/vllm#51685",
        ("decoder",),
        "a cache that stores codes, execution in float32, and an accuracy check",
        relations=("accuracy",),
        features=("codes", "float32"),
        side="both",
    ),
)

"""Stores: what is read of codes and scales is not what was written."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, DECODING, Control, reorders
from kvparity_contracts.paths import PathName

_scaled = partial(Control, subjects=DECODER, paths=DECODING, features=("fp8",), side="both")

STORES = (
    reorders(
        "tile-by-store",
        "decode of a cache with codes has another tile",
        "sgl-project/sglang#25790, vllm-project/vllm#54035",
        subjects=DECODER,
        features=("order", "codes"),
    ),
    _scaled(
        "scale-ignored-in-prefill",
        "prefill forgets the scales of keys and values",
        "flashinfer-ai/flashinfer#4979",
        cause="store",
        born="cache",
    ),
    _scaled(
        "scale-from-first-input",
        "the scales of a layer are fixed by its first real input",
        "vllm-project/vllm#11906",
        path=PathName("batched"),
        cause="store",
        born="cache",
    ),
    _scaled(
        "dequant-rounds",
        "code times scale is rounded to bfloat16 in the kernels",
        "vllm-project/vllm#51685",
        relations=("accuracy",),
        paths=(),
        features=("codes", "float32"),
    ),
)

"""Controls of order and audit checks."""

from __future__ import annotations

from kvparity_contracts.controls.base import KERNELS, Control

OF_KERNELS = (
    Control(
        "other-tile",
        "decode walks the keys in tiles of another size",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        KERNELS,
        "an audit check, or an order check with more keys than one tile",
        relations=("order", "audit"),
        keys="tile",
        features=("order",),
    ),
    Control(
        "ragged-split",
        "where decode cuts the keys follows from how many there are",
        "sgl-project/sgl-flash-attn#43",
        KERNELS,
        "an order check with more keys than one tile",
        relations=("order",),
        keys="tile",
    ),
    Control(
        "other-warps",
        "decode runs with another number of warps",
        "flashinfer-ai/flashinfer#2424",
        KERNELS,
        "an audit check",
        relations=("audit",),
    ),
)

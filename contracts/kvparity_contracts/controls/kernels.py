"""Controls of order and audit checks."""

from __future__ import annotations

from kvparity_contracts.controls.base import KERNELS, Control

OF_KERNELS = (
    Control(
        "other-tile",
        "decode walks the keys in tiles of another size",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        subjects=KERNELS,
        relations=("order", "audit"),
        features=("order",),
    ),
    Control(
        "ragged-split",
        "where decode cuts the keys follows from how many there are",
        "sgl-project/sgl-flash-attn#43",
        subjects=KERNELS,
        relations=("order",),
    ),
    Control(
        "other-warps",
        "decode runs with another number of warps",
        "flashinfer-ai/flashinfer#2424",
        subjects=KERNELS,
        relations=("audit",),
    ),
    Control(
        "other-architecture",
        "decode is compiled for an architecture whose matrix instruction adds in another way",
        "microsoft/onnxruntime#24027",
        subjects=KERNELS,
        relations=("audit",),
        features=("sixteen-bit",),
    ),
)

"""Orders: the same sum, cut or walked in another way."""

from __future__ import annotations

from kvparity_contracts.controls.base import CACHING, DECODING, KERNELS, TOGETHER, Control
from kvparity_contracts.paths import PathName

ORDERS = (
    Control(
        "split-by-batch",
        "the number of splits follows the batch",
        "sgl-project/sgl-flash-attn#43",
        KERNELS,
        "a path that computes sequences together, and a sequence longer than one split",
        paths=TOGETHER,
        keys="split",
        features=("order",),
        path=PathName("batched"),
        side="both",
    ),
    Control(
        "tile-by-query-length",
        "the tile follows the query length",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        KERNELS,
        "a path with another query length than prefill, and a sequence longer than one tile",
        paths=(*CACHING, "permuted"),
        keys="whole-tile",
        features=("order",),
        side="both",
    ),
    Control(
        "split-from-chunk",
        "splits are counted from the start of the chunk, not of the sequence",
        "pegainfer-project/pegainfer#688, vllm-project/vllm#46592",
        KERNELS,
        "a path that decodes (a chunk of one token), and a sequence longer than one split",
        paths=DECODING,
        keys="split",
        features=("order",),
        side="both",
    ),
)

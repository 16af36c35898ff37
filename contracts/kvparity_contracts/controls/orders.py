"""Orders: the same sum, cut or walked in another way."""

from __future__ import annotations

from kvparity_contracts.controls.base import CACHING, TOGETHER, reorders
from kvparity_contracts.paths import PathName

ORDERS = (
    reorders(
        "split-by-batch",
        "the number of splits follows the batch",
        "sgl-project/sgl-flash-attn#43",
        paths=TOGETHER,
        path=PathName("batched"),
        keys="split",
    ),
    reorders(
        "tile-by-query-length",
        "the tile follows the query length",
        "flashinfer-ai/flashinfer#2424, vllm-project/vllm#51902",
        paths=(*CACHING, "permuted"),
        keys="whole-tile",
    ),
    reorders(
        "split-from-chunk",
        "splits are counted from the start of the chunk, not of the sequence",
        "pegainfer-project/pegainfer#688, vllm-project/vllm#46592",
        keys="split",
    ),
)

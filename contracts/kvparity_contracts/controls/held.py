"""What a cache holds and what reads it: outputs may be right and the cache wrong."""

from __future__ import annotations

from kvparity_contracts.controls.base import EVERY, decodes

HELD = (
    decodes(
        "unwritten-slot",
        "the newest token's key and value never reach the cache: the output is right",
        "sgl-project/sglang-jax#1606",
        subjects=EVERY,
        relations=("cache",),
    ),
    decodes(
        "baked-key",
        "decode keeps a key of the first call with each length as a constant",
        "pytorch/pytorch#160066",
        subjects=EVERY,
        relations=("liveness",),
    ),
)

"""What a cache holds and what reads it: outputs may be right and the cache wrong."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODING, EVERY, Control

HELD = (
    Control(
        "unwritten-slot",
        "the newest token's key and value never reach the cache: the output is right",
        "sgl-project/sglang-jax#1606",
        EVERY,
        "a cache check with a path that decodes, and a workload that generates at least 2 tokens",
        relations=("cache",),
        paths=DECODING,
    ),
    Control(
        "baked-key",
        "decode keeps a key of the first call with each length as a constant",
        "pytorch/pytorch#160066",
        EVERY,
        "a liveness check with a path that decodes, and a workload that generates at least 2 "
        "tokens",
        relations=("liveness",),
        paths=DECODING,
    ),
)

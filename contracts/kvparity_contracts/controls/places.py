"""Positions, pads and slots: the right arithmetic on the wrong tokens."""

from __future__ import annotations

from kvparity_contracts.controls.base import CACHING, DECODING, EVERY, LANGUAGE, Control
from kvparity_contracts.paths import PathName

PLACES = (
    Control(
        "position-off-by-one",
        "decoded tokens are told the position after their own",
        "waybarrios/vllm-mlx#311, Blaizzy/mlx-vlm#1983",
        LANGUAGE,
        "a path that decodes, and a workload that generates at least 2 tokens",
        relations=("invariance", "trace"),
        paths=DECODING,
    ),
    Control(
        "stale-slot",
        "a cache slot still holds an earlier write",
        "sgl-project/sglang#30339, NovaSky-AI/SkyRL#2246",
        EVERY,
        "a path that decodes, and a workload that generates at least 2 tokens",
        relations=("invariance", "cache", "trace"),
        paths=DECODING,
        fewest=3,
    ),
    Control(
        "padding-leaks",
        "left pads are attended to and shift positions",
        "huggingface/transformers#46773, TransformerLensOrg/TransformerLens#1609",
        ("decoder",),
        "a workload padded on the left, with prompts of two lengths",
        paths=("padded-left",),
        sequences=2,
        path=PathName("padded-left"),
        generate=1,
    ),
    Control(
        "narrow-cache",
        "the cache stores a narrower format than declared",
        "sgl-project/sglang#25790, vllm-project/vllm#51685",
        EVERY,
        "a cache of numbers, not of codes, a path that reads it, and a workload that generates at "
        "least 2 tokens",
        relations=("invariance", "cache", "trace"),
        paths=CACHING,
        features=("numbers",),
        side="both",
    ),
)

"""Positions, pads and slots: the right arithmetic on the wrong tokens."""

from __future__ import annotations

from kvparity_contracts.controls.base import CACHING, DECODER, EVERY, LANGUAGE, Control, decodes
from kvparity_contracts.paths import PathName

PLACES = (
    decodes(
        "position-off-by-one",
        "decoded tokens are given the position after their own",
        "waybarrios/vllm-mlx#311, Blaizzy/mlx-vlm#1983",
        subjects=LANGUAGE,
        relations=("invariance", "trace"),
        cause="position",
        born="rotary",
    ),
    decodes(
        "stale-slot",
        "a cache slot still holds an earlier write",
        "sgl-project/sglang#30339, NovaSky-AI/SkyRL#2246",
        subjects=EVERY,
        relations=("invariance", "cache", "trace"),
        fewest=3,
        cause="memory",
        born="cache",
    ),
    Control(
        "padding-leaks",
        "left pads are attended to and shift positions",
        "huggingface/transformers#46773, TransformerLensOrg/TransformerLens#1609",
        subjects=DECODER,
        paths=("padded-left",),
        path=PathName("padded-left"),
        sequences=2,
        generate=1,
        cause="mask or window",
        born="attention",
    ),
    Control(
        "narrow-cache",
        "the cache stores a narrower format than declared",
        "sgl-project/sglang#25790, vllm-project/vllm#51685",
        subjects=EVERY,
        relations=("invariance", "cache", "trace"),
        paths=CACHING,
        side="both",
        features=("numbers",),
        cause="store",
        born="cache",
    ),
)

"""Reuse: what a cache keeps between uses, and what a prefix brings along."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODER, Control
from kvparity_contracts.paths import PathName

REUSE = (
    Control(
        "stale-after-update",
        "the prefix cache outlives an update of the weights",
        "NovaSky-AI/SkyRL#2246, NVIDIA-NeMo/RL#4018",
        subjects=DECODER,
        paths=("reset",),
        path=PathName("reset"),
        fewest=4,
        cause="memory",
        born="cache",
    ),
    Control(
        "prefix-shifts-positions",
        "behind a reused prefix every position is one too far",
        "waybarrios/vllm-mlx#311",
        subjects=DECODER,
        relations=("invariance", "trace"),
        paths=("prefix", "prefix-paged"),
        path=PathName("prefix", 8),
        keys="tile",
        cause="position",
        born="rotary",
    ),
)

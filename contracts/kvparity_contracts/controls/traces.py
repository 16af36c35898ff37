"""What attention looks at: another layer's cache, or every key alike."""

from __future__ import annotations

from kvparity_contracts.controls.base import Control

TRACES = (
    Control(
        "wrong-donor",
        "every layer reads the first layer's cache",
        "ml-explore/mlx-lm#1674",
        ("decoder",),
        "a trace check, and at least two layers",
        relations=("trace",),
    ),
    Control(
        "uniform-attention",
        "the scale of the scores is lost, and every key weighs the same",
        "NVIDIA/Megatron-LM#848",
        ("decoder",),
        "a trace check",
        relations=("trace",),
    ),
)

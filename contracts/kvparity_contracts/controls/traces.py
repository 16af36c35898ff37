"""What attention looks at: another layer's cache, or every key alike."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, Control

_traced = partial(Control, subjects=DECODER, relations=("trace",))

TRACES = (
    _traced(
        "wrong-donor",
        "every layer reads the first layer's cache",
        "ml-explore/mlx-lm#1674",
        features=("layers",),
    ),
    _traced(
        "uniform-attention",
        "the scale of the scores is lost, and every key weighs the same",
        "NVIDIA/Megatron-LM#848",
    ),
)

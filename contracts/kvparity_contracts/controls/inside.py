"""What only a look inside shows: the outputs may be right, and the cache or its reader wrong."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, EVERY, Control, decodes

_traced = partial(Control, subjects=DECODER, relations=("trace",))

INSIDE = (
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

"""Positions: another angle than the token's place asks for."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODING, LANGUAGE, Control
from kvparity_contracts.paths import PathName

POSITIONS = (
    Control(
        "rope-table-bfloat16",
        "the trainer's RoPE table was cast to bfloat16 with the model",
        "pytorch/torchtitan bitwise_parity.md",
        ("decoder",),
        "a workload that generates at least 2 tokens",
        side="rescore",
    ),
    Control(
        "positions-inexact",
        "positions are counted in a float that is exact for small ones only",
        "huggingface/candle#3520",
        ("decoder",),
        "an accuracy check, and a sequence of more than 17 tokens",
        relations=("accuracy",),
        keys="tile",
        path=PathName("prefill"),
        side="both",
    ),
    Control(
        "decode-at-position-zero",
        "every decoded token is told position 0",
        "Blaizzy/mlx-vlm#1983",
        LANGUAGE,
        "a path that decodes, and a workload that generates at least 2 tokens",
        relations=("invariance", "trace"),
        paths=DECODING,
    ),
    Control(
        "padding-shifts-positions",
        "left pads are masked, and still counted as positions",
        "TransformerLensOrg/TransformerLens#1609",
        ("decoder",),
        "a workload padded on the left, with prompts of two lengths",
        relations=("invariance", "trace"),
        paths=("padded-left",),
        sequences=2,
        path=PathName("padded-left"),
    ),
    Control(
        "padding-mask-skipped-alone",
        "a batch of one has no padding mask",
        "huggingface/transformers#46773",
        ("decoder",),
        "a workload padded on the left",
        paths=("padded-left",),
        path=PathName("padded-left"),
    ),
)

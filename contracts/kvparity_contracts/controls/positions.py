"""Rotary positions and pads: another angle than the token's place asks for."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, LANGUAGE, Control, decodes
from kvparity_contracts.paths import PREFILL, PathName

_padded = partial(Control, subjects=DECODER, paths=("padded-left",), path=PathName("padded-left"))

POSITIONS = (
    Control(
        "rope-table-bfloat16",
        "the trainer's RoPE table was cast to bfloat16 with the model",
        "pytorch/torchtitan bitwise_parity.md",
        subjects=DECODER,
        side="rescore",
        cause="position",
        born="rotary",
    ),
    Control(
        "positions-inexact",
        "positions are counted in a float that is exact for small ones only",
        "huggingface/candle#3520",
        subjects=DECODER,
        relations=("accuracy",),
        path=PREFILL,
        side="both",
        keys="tile",
    ),
    decodes(
        "decode-at-position-zero",
        "every decoded token is given position 0",
        "Blaizzy/mlx-vlm#1983",
        subjects=LANGUAGE,
        relations=("invariance", "trace"),
        cause="position",
        born="rotary",
    ),
    _padded(
        "padding-shifts-positions",
        "left pads are masked, and still counted as positions",
        "TransformerLensOrg/TransformerLens#1609",
        relations=("invariance", "trace"),
        sequences=2,
        cause="position",
        born="rotary",
    ),
    _padded(
        "padding-mask-skipped-alone",
        "a batch of one has no padding mask",
        "huggingface/transformers#46773",
        cause="mask or window",
        born="attention",
    ),
)

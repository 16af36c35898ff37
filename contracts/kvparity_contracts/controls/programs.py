"""Traced programs: what of the traced call became part of them."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, Control
from kvparity_contracts.paths import PathName

_traced = partial(
    Control, subjects=DECODER, paths=("exported", "compiled"), path=PathName("exported"),
    generate=4, cause="traced program", born="program",
)  # fmt: skip

PROGRAMS = (
    _traced(
        "baked-cache",
        "the decode step was traced with the cache as a constant",
        "pytorch/pytorch#160066",
        relations=("invariance", "liveness"),
    ),
    _traced(
        "baked-position",
        "the decode step was traced with the position as a constant",
        "huggingface/candle#3728, sonos/torch-to-nnef#217",
    ),
    _traced(
        "frozen-length",
        "the decode step keeps the number of keys that it was captured with",
        "paiml/aprender#2030",
        relations=("invariance", "liveness"),
    ),
)

"""Traced programs: what of the traced call became part of them."""

from __future__ import annotations

from kvparity_contracts.controls.base import Control, SubjectKind
from kvparity_contracts.paths import PathKind, PathName

_PROGRAMS: tuple[PathKind, ...] = ("exported", "compiled")
_SUBJECTS: tuple[SubjectKind, ...] = ("decoder",)

PROGRAMS = (
    Control(
        "baked-cache",
        "the decode step was traced with the cache as a constant",
        "pytorch/pytorch#160066",
        _SUBJECTS,
        "path exported or compiled, and a workload that generates at least 4 tokens",
        relations=("invariance", "liveness"),
        paths=_PROGRAMS,
        path=PathName("exported"),
        generate=4,
    ),
    Control(
        "baked-position",
        "the decode step was traced with the position as a constant",
        "huggingface/candle#3728, sonos/torch-to-nnef#217",
        _SUBJECTS,
        "path exported or compiled, and a workload that generates at least 4 tokens",
        paths=_PROGRAMS,
        path=PathName("exported"),
        generate=4,
    ),
    Control(
        "frozen-length",
        "the decode step keeps the number of keys that it was captured with",
        "paiml/aprender#2030",
        _SUBJECTS,
        "path exported or compiled, and a workload that generates at least 4 tokens",
        relations=("invariance", "liveness"),
        paths=_PROGRAMS,
        path=PathName("exported"),
        generate=4,
    ),
)

"""Sliding windows and rings: a row sees other keys than its window holds."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import (
    DECODER,
    DECODING,
    LANGUAGE,
    TOGETHER,
    Control,
    reorders,
)
from kvparity_contracts.paths import PREFILL, PathName

_windowed = partial(Control, subjects=DECODER, keys="window", features=("window", "no-ring"))

WINDOWS = (
    reorders(
        "window-drops-split",
        "layers with a window are planned without the fixed split",
        "sgl-project/sglang#26412",
        subjects=DECODER,
        paths=TOGETHER,
        path=PathName("batched"),
        keys="split",
        features=("order", "window"),
    ),
    _windowed(
        "window-compiled-out",
        "no kernel masks what lies before the window: consistent, and wrong",
        "sgl-project/sglang#31501",
        relations=("accuracy", "liveness"),
        side="both",
    ),
    _windowed(
        "window-one-short",
        "decode sees one key less than its window holds",
        "sgl-project/sglang#32087",
        subjects=LANGUAGE,
        relations=("invariance", "liveness", "trace"),
        paths=DECODING,
        features=("window",),
        cause="mask or window",
        born="attention",
    ),
    _windowed(
        "ring-overwritten",
        "a chunk overwrites keys that its own first rows still see",
        "Lightning-AI/litgpt#2182",
        relations=("accuracy",),
        path=PREFILL,
        side="both",
        features=("window", "ring"),
    ),
    _windowed(
        "writeback-skipped",
        "keys that the last rows of a chunk do not see are never written",
        "sgl-project/sglang-jax#1606",
        relations=("cache",),
        side="rescore",
    ),
    _windowed(
        "ring-stale-on-reuse",
        "a reused prefix finds its window as it was one lap earlier",
        "sgl-project/sglang#30339",
        paths=("prefix", "prefix-paged"),
        path=PathName("prefix", 8),
        features=("window",),
        cause="memory",
        born="cache",
    ),
)

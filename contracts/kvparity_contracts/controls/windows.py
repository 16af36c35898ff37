"""Sliding windows and rings: a row sees other keys than its window holds."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODING, LANGUAGE, TOGETHER, Control
from kvparity_contracts.paths import PathName

WINDOWS = (
    Control(
        "window-drops-split",
        "layers with a window are planned without the fixed split",
        "sgl-project/sglang#26412",
        ("decoder",),
        "a sliding window, a path that computes sequences together, and a sequence longer than one "
        "split",
        paths=TOGETHER,
        keys="split",
        features=("order", "window"),
        path=PathName("batched"),
        side="both",
    ),
    Control(
        "window-compiled-out",
        "no kernel masks what lies before the window: consistent, and wrong",
        "sgl-project/sglang#31501",
        ("decoder",),
        "a sliding window without a ring, an accuracy or liveness check, and a sequence longer "
        "than the window",
        relations=("accuracy", "liveness"),
        keys="window",
        features=("window", "no-ring"),
        side="both",
    ),
    Control(
        "window-one-short",
        "decode sees one key less than its window holds",
        "sgl-project/sglang#32087",
        LANGUAGE,
        "a sliding window, a path that decodes, and a sequence longer than the window",
        relations=("invariance", "liveness", "trace"),
        paths=DECODING,
        keys="window",
        features=("window",),
    ),
    Control(
        "ring-overwritten",
        "a chunk overwrites keys that its own first rows still see",
        "Lightning-AI/litgpt#2182",
        ("decoder",),
        "rings, an accuracy check, and a sequence longer than the window",
        relations=("accuracy",),
        keys="window",
        features=("window", "ring"),
        path=PathName("prefill"),
        side="both",
    ),
    Control(
        "writeback-skipped",
        "keys that the last rows of a chunk do not see are never written",
        "sgl-project/sglang-jax#1606",
        ("decoder",),
        "a sliding window without a ring, a cache check, and a sequence longer than the window",
        relations=("cache",),
        keys="window",
        features=("window", "no-ring"),
        side="rescore",
    ),
    Control(
        "ring-stale-on-reuse",
        "a reused prefix finds its window as it was one lap earlier",
        "sgl-project/sglang#30339",
        ("decoder",),
        "a sliding window, and a path with a shared prefix",
        paths=("prefix", "prefix-paged"),
        keys="window",
        features=("window",),
        path=PathName("prefix", 8),
    ),
)

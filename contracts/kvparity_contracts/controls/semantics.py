"""Both kernels compute the same wrong thing: bits agree, and only a limit can tell."""

from __future__ import annotations

from kvparity_contracts.controls.base import Control
from kvparity_contracts.paths import PathName

_PREFILL = PathName("prefill")

SEMANTICS = (
    Control(
        "softcap-ignored",
        "both kernels take a softcap and use none",
        "sgl-project/sglang#33915",
        ("attention",),
        "a softcap, and an accuracy check",
        relations=("accuracy",),
        side="both",
        path=_PREFILL,
        generate=1,
        features=("softcap",),
    ),
    Control(
        "window-one-long",
        "both kernels see one key more than the window holds",
        "huggingface/transformers#39408",
        ("attention",),
        "a sliding window, an accuracy or liveness check, a sequence longer than the window, and a "
        "workload that generates at least 2 tokens",
        relations=("accuracy", "liveness"),
        side="both",
        keys="window",
        features=("window",),
    ),
    Control(
        "sink-twice",
        "both kernels count the attention sink twice",
        "ROCm/rocm-libraries#12227",
        ("decoder",),
        "attention sinks, and an accuracy check",
        relations=("accuracy",),
        side="both",
        path=_PREFILL,
        generate=1,
        features=("sinks",),
    ),
    Control(
        "scale-of-padded-head",
        "both kernels scale scores by the head dimension that they pad to",
        "intel/ipex-llm#12619",
        ("attention",),
        "an accuracy check",
        relations=("accuracy",),
        side="both",
        path=_PREFILL,
        generate=1,
    ),
    Control(
        "kv-heads-interleaved",
        "both kernels give query head h the KV head h modulo their number",
        "onnx/onnx#7274, apple/axlearn#842",
        ("attention",),
        "several KV heads, several query heads for each, and an accuracy check",
        relations=("accuracy",),
        side="both",
        path=_PREFILL,
        generate=1,
        features=("groups",),
    ),
)
"""Each is planted into both sides at once, as float64 computes it: no path differs from another."""

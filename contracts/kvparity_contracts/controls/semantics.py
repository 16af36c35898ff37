"""Both kernels compute the same wrong thing: bits agree, and only a limit can tell."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import KERNELS, PAIRS, Control
from kvparity_contracts.paths import PREFILL, PathName

_alike = partial(
    Control, subjects=PAIRS, relations=("accuracy",), side="both", path=PREFILL, generate=1
)

SEMANTICS = (
    _alike(
        "softcap-ignored",
        "both kernels take a softcap and use none",
        "sgl-project/sglang#33915",
        features=("softcap",),
    ),
    Control(
        "window-one-long",
        "both kernels see one key more than the window holds",
        "huggingface/transformers#39408",
        subjects=PAIRS,
        relations=("accuracy", "liveness"),
        side="both",
        keys="window",
        features=("window",),
    ),
    _alike(
        "sink-twice",
        "both kernels count the attention sink twice",
        "ROCm/rocm-libraries#12227",
        subjects=KERNELS,
        features=("sinks",),
    ),
    _alike(
        "bias-with-wrong-sign",
        "both kernels add a bias of scores with the wrong sign",
        "meta-pytorch/attention-gym#86",
        features=("bias",),
    ),
    _alike(
        "bias-one-off",
        "both kernels take the bias of the next distance",
        "vllm-project/vllm#945",
        features=("bias-table",),
    ),
    _alike(
        "scores-of-first-columns",
        "both kernels compute scores of as many columns as values have",
        "triton-lang/triton#621",
        features=("narrow-values",),
    ),
    _alike(
        "later-keys-hidden",
        "both kernels hide the keys behind a row's own, which it should see",
        "sgl-project/sglang#35434",
        features=("both-ways",),
    ),
    _alike(
        "window-before-one-long",
        "both kernels see one key more before a row's own than its window has on that side",
        "huggingface/transformers#39408",
        keys="window",
        features=("both-ways", "window"),
    ),
    _alike(
        "window-ahead-one-long",
        "both kernels see one key more behind a row's own than its window has on that side",
        "huggingface/transformers#39408",
        keys="ahead",
        features=("window-ahead",),
    ),
    Control(
        "reads-into-neighbour",
        "a row sees the first key of the sequence that lies behind its own in the call",
        "Tencent-Hunyuan/HunyuanVideo#310",
        subjects=PAIRS,
        paths=("permuted",),
        path=PathName("permuted"),
        generate=1,
        features=("both-ways",),
        cause="memory",
        born="attention",
    ),
    _alike(
        "scale-of-padded-head",
        "both kernels scale scores by the head dimension that they pad to",
        "intel/ipex-llm#12619",
    ),
    _alike(
        "kv-heads-interleaved",
        "both kernels give query head h the KV head h modulo their number",
        "onnx/onnx#7274, apple/axlearn#842",
        features=("groups",),
    ),
)
"""Each is planted into both sides at once, as float64 computes it: no path differs from another."""

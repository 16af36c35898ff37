"""Linears and norms: which kernel runs follows the number of rows."""

from __future__ import annotations

from kvparity_contracts.controls.base import DECODING, Control
from kvparity_contracts.paths import PathName

LINEARS = (
    Control(
        "norm-block-by-rows",
        "a norm adds in smaller blocks from some number of rows on",
        "vllm-project/vllm#48271",
        ("decoder",),
        "a path that decodes, and a sequence of more than 16 tokens, and execution in float32",
        paths=DECODING,
        keys="tile",
        features=("float32",),
        side="both",
    ),
    Control(
        "linear-kernel-by-rows",
        "a heuristic picks a split of the depth by the number of rows",
        "NVIDIA/TransformerEngine#2986",
        ("decoder",),
        "a path that decodes, and execution in float32",
        paths=DECODING,
        keys="tile",
        features=("float32",),
        side="both",
    ),
    Control(
        "linear-split-where-narrow",
        "products of few columns are split along their depth where rows are few",
        "local-inference-lab/vllm#719",
        ("decoder",),
        "a path that decodes, and a sequence of more than 8 tokens, and execution in float32",
        paths=DECODING,
        keys="tile",
        features=("float32",),
        side="both",
    ),
    Control(
        "linear-split-by-tokens",
        "the split of the depth follows the tokens, with partial sums in bfloat16",
        "sgl-project/sglang#37292",
        ("decoder",),
        "a path that decodes",
        paths=DECODING,
        keys="tile",
        side="both",
    ),
    Control(
        "linear-contracts-by-rows",
        "the kernel for many rows contracts products and sums, that for few does not",
        "RL-Align/RL-Kernel#394",
        ("decoder",),
        "a path that decodes, and a sequence of more than 16 tokens, and execution in float32",
        paths=DECODING,
        keys="tile",
        features=("float32",),
        side="both",
    ),
    Control(
        "linear-by-rows-per-request",
        "a step with a few rows per request runs other kernels than one row",
        "vllm-project/vllm#54506",
        ("decoder",),
        "path chunked or streamed, and execution in float32",
        paths=("chunked", "streamed"),
        keys="tile",
        features=("float32",),
        path=PathName("chunked", 4),
        side="both",
    ),
)

"""Linears and norms: which kernel runs follows the number of rows."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, DECODING, Control
from kvparity_contracts.paths import PathName

_by_rows = partial(
    Control, subjects=DECODER, paths=DECODING, keys="tile", features=("float32",), side="both",
    cause="reduction order", born="linear",
)  # fmt: skip

LINEARS = (
    _by_rows(
        "norm-block-by-rows",
        "a norm adds in smaller blocks from some number of rows on",
        "vllm-project/vllm#48271",
        born="norm",
    ),
    _by_rows(
        "linear-kernel-by-rows",
        "a heuristic picks a split of the depth by the number of rows",
        "NVIDIA/TransformerEngine#2986",
    ),
    _by_rows(
        "linear-split-where-narrow",
        "products of few columns are split along their depth where rows are few",
        "local-inference-lab/vllm#719",
    ),
    _by_rows(
        "linear-split-by-tokens",
        "the split of the depth follows the tokens, with partial sums in bfloat16",
        "sgl-project/sglang#37292",
        features=(),
    ),
    _by_rows(
        "linear-contracts-by-rows",
        "the kernel for many rows contracts products and sums, that for few does not",
        "RL-Align/RL-Kernel#394",
        cause="another kernel",
    ),
    _by_rows(
        "linear-by-rows-per-request",
        "a step with a few rows per request runs other kernels than one row",
        "vllm-project/vllm#54506",
        paths=("chunked", "streamed"),
        path=PathName("chunked", 4),
    ),
)

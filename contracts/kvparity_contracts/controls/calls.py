"""What engines do to kernels: fused tensors, padding, large batches, large caches."""

from __future__ import annotations

from kvparity_contracts.controls.base import Control, SubjectKind
from kvparity_contracts.paths import PathName

_PAIRS: tuple[SubjectKind, ...] = ("attention",)
EDGE = 16
"""Rows that the control ``batch-edge`` computes."""

CALLS = (
    Control(
        "strides-ignored",
        "q is read as if its rows lay side by side, and it is a view of a fused tensor",
        "flagos-ai/FlagGems#5896",
        _PAIRS,
        "inputs: strided",
        side="both",
        features=("strided",),
    ),
    Control(
        "batch-edge",
        "decode computes the first 16 rows of a batch, and no more",
        "flashinfer-ai/flashinfer#3125",
        _PAIRS,
        "path batched(n) with more than 16 rows",
        paths=("batched",),
        path=PathName("batched", EDGE + 1),
        features=("wide-batch",),
    ),
    Control(
        "empty-writes-neighbour",
        "prefill's early exit of an empty sequence writes to the row before it",
        "Dao-AILab/flash-attention#2842",
        _PAIRS,
        "path batched, mixed or permuted, and empty: zero",
        paths=("batched", "mixed", "permuted"),
        path=PathName("batched"),
        features=("empties",),
    ),
    Control(
        "nan-without-keys",
        "decode gives NaN where a row sees no key, as padding of a captured batch does",
        "deepseek-ai/FlashMLA#11, vllm-project/vllm#37442",
        _PAIRS,
        "path batched or mixed, and empty: zero",
        paths=("batched", "mixed"),
        path=PathName("batched"),
        features=("empties",),
    ),
    Control(
        "offset-int32",
        "slot x stride is computed in 32 bits, and slots beyond read the first one",
        "vllm-project/vllm#47671",
        _PAIRS,
        "path far",
        paths=("far",),
        path=PathName("far"),
    ),
)

"""What engines do to kernels: fused tensors, padding, large batches, large caches."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import PAIRS, Control, decodes
from kvparity_contracts.paths import PathName

EDGE = 16
"""Rows that the control ``batch-edge`` computes."""
_batched = partial(
    Control, subjects=PAIRS, path=PathName("batched"), cause="memory", born="attention"
)
_decodes = partial(decodes, subjects=PAIRS, cause="memory", born="cache")
CALLS = (
    Control(
        "strides-ignored",
        "q is read as if its rows lay side by side, and it is a view of a fused tensor",
        "flagos-ai/FlagGems#5896",
        subjects=PAIRS,
        side="both",
        features=("strided",),
        cause="memory",
        born="attention",
    ),
    _batched(
        "batch-edge",
        "decode computes the first 16 rows of a batch, and no more",
        "flashinfer-ai/flashinfer#3125",
        paths=("batched",),
        path=PathName("batched", EDGE + 1),
        features=("wide-batch",),
    ),
    _batched(
        "empty-writes-neighbour",
        "prefill's early exit of an empty sequence writes to the row before it",
        "Dao-AILab/flash-attention#2842",
        paths=("batched", "mixed", "permuted"),
        features=("empties",),
    ),
    _batched(
        "nan-without-keys",
        "decode gives NaN where a row sees no key, as padding of a captured batch does",
        "deepseek-ai/FlashMLA#11, vllm-project/vllm#37442",
        paths=("batched", "mixed"),
        features=("empties",),
        cause="mask or window",
    ),
    _batched(
        "keys-of-longest-encoder",
        "decode lets all rows see as many keys as the longest encoder of its call has",
        "vllm-project/vllm#29268",
        paths=("batched", "mixed"),
        features=("cross",),
        cause="mask or window",
    ),
    _batched(
        "padding-reaches-rows",
        "what a padding row reads, whose kv_lens is left from another batch, reaches every row",
        "vllm-project/vllm#37442, flashinfer-ai/flashinfer#2883",
        paths=("batched", "mixed"),
        features=("empties",),
    ),
    _decodes(
        "cache-strides-ignored",
        "decode computes the strides of a cache from its shape, and it is a view of another layout",
        "ROCm/aiter#3498",
        features=("cache-views",),
    ),
    Control(
        "offset-int32",
        "slot x stride is computed in 32 bits, and slots beyond read the first one",
        "vllm-project/vllm#47671",
        subjects=PAIRS,
        paths=("far",),
        path=PathName("far"),
        cause="memory",
        born="cache",
    ),
    _batched(
        "out-left-unwritten",
        "decode leaves rows of its out without a key as it found them",
        "vllm-project/vllm#37442",
        paths=("batched", "mixed"),
        features=("empties", "out"),
    ),
    _batched(
        "append-writes-padding",
        "append writes padding, which has slot -1, to the last slot of the cache",
        "vllm-project/vllm#43869",
        paths=("batched", "mixed"),
        features=("append", "empties"),
        born="cache",
    ),
    _decodes(
        "pages-in-order",
        "decode takes every page of a sequence to lie behind the one before it",
        "hw-native-sys/pypto#470",
        keys="page",
        features=("pages",),
    ),
    _decodes(
        "page-past-the-end",
        "decode loads one slot more than a sequence has, or all that is left of its last page, and "
        "multiplies it by zero",
        "vllm-project/vllm#47305, flashinfer-ai/flashinfer#941",
        features=("pages",),
    ),
)

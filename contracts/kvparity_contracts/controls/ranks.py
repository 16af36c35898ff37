"""Controls of tp-invariance checks: what makes a number of ranks add otherwise than one."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, Control

_ranks = partial(Control, subjects=DECODER, relations=("tp-invariance",), side="ranks")

OF_RANKS = (
    _ranks(
        "rank-sums-in-ring",
        "partial sums go around a ring, and are added from another rank for each chunk of columns",
        "vllm-project/vllm#57042",
        features=("four-ranks",),
    ),
    _ranks(
        "rank-depth-in-one-chain",
        "each rank adds its part of the depth in one chain, not as its part of the tree",
        "radixark/miles#1485",
        features=("blocks-per-rank",),
    ),
    _ranks(
        "rank-sums-in-bfloat16",
        "the last rank rounds its partial sums to bfloat16 before they are added",
        "RL-Align/RL-Kernel#313",
    ),
    _ranks(
        "rank-with-another-shard",
        "the last rank has the first one's queries, keys and values",
        "vllm-project/vllm-gguf-plugin#103",
    ),
    _ranks(
        "rank-with-stale-weights",
        "the last rank missed an update: its down projection is 1 % off",
        "sgl-project/sglang#6626",
    ),
    _ranks(
        "unasked-all-reduce",
        "two ranks add their partial sums by all_reduce, though reduce is fixed",
        "vllm-project/vllm#51290",
        expect="void",
        features=("fixed-reduce",),
    ),
)

"""Dispatch: which kernel runs follows the batch, the step, a table or a launch."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import DECODER, DECODING, TOGETHER, reorders
from kvparity_contracts.paths import PathName

_chooses = partial(reorders, features=("order", "taken-order"))
_merges = partial(reorders, subjects=DECODER, features=("order", "full-layer"))

DISPATCH = (
    reorders(
        "tile-by-neighbour",
        "the longest query of a step picks the tile of all",
        "vllm-project/vllm#51902",
        subjects=DECODER,
    ),
    reorders(
        "kernel-by-longest-query",
        "where all queries of a step are single, a kernel with other splits runs",
        "vllm-project/flash-attention#169",
        subjects=DECODER,
        keys="split",
    ),
    _chooses(
        "tile-by-mean-query",
        "the mean query length of a call picks the tile",
        "flashinfer-ai/flashinfer#2424",
    ),
    _chooses(
        "splits-over-batch",
        "a budget of splits is divided by the batch",
        "lightseekorg/tokenspeed#904",
        paths=TOGETHER,
        path=PathName("batched"),
        keys="split",
    ),
    _chooses(
        "mask-follows-alignment",
        "whether the first query lies on a tile edge picks the tile",
        "sgl-project/sglang#33417",
        generate=4,
    ),
    _chooses(
        "tile-by-query-count",
        "a sequence of few queries rounds its tile to their number",
        "sgl-project/sglang#35161",
    ),
    _chooses(
        "kernel-by-bucket",
        "decode of more sequences than a bucket holds runs another kernel",
        "pegainfer-project/pegainfer#623",
        paths=("batched", "mixed"),
        path=PathName("batched"),
    ),
    _chooses(
        "tuned-elsewhere",
        "the rollout's process has tuned another tile than the trainer's",
        "NVIDIA/Megatron-LM#6966",
        paths=(),
        side="rollout",
    ),
    _chooses(
        "order-by-launch",
        "half of all launches add in another order",
        "vllm-project/vllm#53906",
        cause="not deterministic",
    ),
    _chooses(
        "replays-captured-splits",
        "decode replays a graph that was captured with more splits",
        "vllm-project/vllm#28131",
        keys="split",
    ),
    _merges(
        "cascade-of-shared-prefix",
        "a prefix that sequences share is reduced once, by itself, and merged",
        "vllm-project/vllm#32561",
        paths=("batched", "mixed", "paged"),
        path=PathName("paged", 16),
        sequences=2,
        features=("order", "full-layer", "shared-prompt"),
    ),
    _merges(
        "hit-merges-states",
        "cached keys are reduced by themselves and merged with the fresh ones",
        "sgl-project/sglang#34683",
        paths=("chunked", "streamed", "prefix", "prefix-paged"),
        path=PathName("chunked", 16),
    ),
    _merges(
        "chunk-from-budget",
        "prompts are reduced in chunks that the queue's budget leaves",
        "pegainfer-project/pegainfer#688",
        paths=(*DECODING, "permuted"),
    ),
    reorders(
        "polynomial-exp2",
        "decode takes 2^x from a polynomial from one split of keys on",
        "Dao-AILab/flash-attention#2596",
        subjects=DECODER,
        keys="split",
        cause="another kernel",
    ),
)

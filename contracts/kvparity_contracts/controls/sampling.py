"""What the sampler reports: equal logits, other logprobs."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import LANGUAGE, Control, scores
from kvparity_contracts.paths import PathName

_samples = partial(Control, subjects=LANGUAGE, cause="logprob semantics", born="sampler")
SAMPLING = (
    _samples(
        "raw-rollout-logprobs",
        "the rollout reports logprobs at temperature 1, the trainer rescores at its own",
        "huggingface/trl#4159",
        tempered=True,
    ),
    scores(
        "scaled-logprobs",
        "logprobs, not logits, are divided by the temperature",
        "PrimeIntellect-ai/prime-rl#697",
        side="rescore",
        tempered=True,
    ),
    _samples(
        "top-p-renormalised",
        "the rollout's logprobs are of the renormalised nucleus",
        "huggingface/trl#6789, vllm-project/vllm#42259",
    ),
    scores(
        "inlined-logprob",
        "the sampler has a formula of its own for the logprob",
        "pytorch/torchtitan#3629",
    ),
    _samples(
        "sampler-by-batch",
        "another sampler scores steps of many sequences",
        "vllm-project/vllm#51187",
        paths=("batched", "mixed"),
        path=PathName("batched"),
        side="both",
    ),
    scores(
        "cached-rows-uninitialised",
        "logprobs of cached positions are read from a buffer nobody wrote",
        "vllm-project/vllm#42245",
        paths=("chunked",),
        path=PathName("chunked", 16),
        cause="memory",
    ),
)

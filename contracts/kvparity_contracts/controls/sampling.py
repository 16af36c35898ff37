"""What the sampler reports: equal logits, other logprobs."""

from __future__ import annotations

from kvparity_contracts.controls.base import LANGUAGE, Control
from kvparity_contracts.paths import PathName

SAMPLING = (
    Control(
        "raw-rollout-logprobs",
        "the rollout reports logprobs at temperature 1, the trainer rescores at its own",
        "huggingface/trl#4159",
        LANGUAGE,
        "a temperature other than 1, and a workload that generates at least 2 tokens",
        tempered=True,
    ),
    Control(
        "scaled-logprobs",
        "logprobs, not logits, are divided by the temperature",
        "PrimeIntellect-ai/prime-rl#697",
        LANGUAGE,
        "a temperature other than 1",
        tempered=True,
        path=PathName("prefill"),
        side="rescore",
        generate=1,
        scores_prompt=True,
    ),
    Control(
        "top-p-renormalised",
        "the rollout's logprobs are of the renormalised nucleus",
        "huggingface/trl#6789, vllm-project/vllm#42259",
        LANGUAGE,
        "a workload that generates at least 2 tokens",
    ),
    Control(
        "inlined-logprob",
        "the sampler has a formula of its own for the logprob",
        "pytorch/torchtitan#3629",
        LANGUAGE,
        "nothing more",
        path=PathName("prefill"),
        generate=1,
        scores_prompt=True,
    ),
    Control(
        "sampler-by-batch",
        "another sampler scores steps of many sequences",
        "vllm-project/vllm#51187",
        LANGUAGE,
        "path batched or mixed",
        paths=("batched", "mixed"),
        path=PathName("batched"),
        side="both",
    ),
    Control(
        "cached-rows-uninitialised",
        "logprobs of cached positions are read from a buffer nobody wrote",
        "vllm-project/vllm#42245",
        LANGUAGE,
        "path chunked",
        paths=("chunked",),
        path=PathName("chunked", 16),
        generate=1,
        scores_prompt=True,
    ),
)

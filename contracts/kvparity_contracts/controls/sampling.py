"""What the sampler reports: equal logits, other logprobs."""

from __future__ import annotations

from kvparity_contracts.controls.base import LANGUAGE, Control

SAMPLING = (
    Control(
        "raw-rollout-logprobs",
        "the rollout reports logprobs at temperature 1, the trainer rescores at its own",
        "huggingface/trl#4159",
        LANGUAGE,
        "a temperature other than 1",
        tempered=True,
    ),
    Control(
        "scaled-logprobs",
        "logprobs, not logits, are divided by the temperature",
        "PrimeIntellect-ai/prime-rl#697",
        LANGUAGE,
        "a temperature other than 1",
        tempered=True,
    ),
    Control(
        "top-p-renormalised",
        "the rollout's logprobs are of the renormalised nucleus",
        "huggingface/trl#6789, vllm-project/vllm#42259",
        LANGUAGE,
        "nothing more",
    ),
    Control(
        "inlined-logprob",
        "the sampler has a formula of its own for the logprob",
        "pytorch/torchtitan#3629",
        LANGUAGE,
        "nothing more",
    ),
    Control(
        "sampler-by-batch",
        "another sampler scores steps of many sequences",
        "vllm-project/vllm#51187",
        LANGUAGE,
        "path batched or mixed",
        paths=("batched", "mixed"),
        generate=2,
    ),
    Control(
        "cached-rows-uninitialised",
        "logprobs of cached positions are read from a buffer nobody wrote",
        "vllm-project/vllm#42245",
        LANGUAGE,
        "path chunked",
        paths=("chunked",),
    ),
)

"""Scores and inputs: equal logits, other logprobs; other tokens than the reported ones."""

from __future__ import annotations

from kvparity_contracts.controls.base import EVERY, LANGUAGE, Control
from kvparity_contracts.paths import PathName

SCORES = (
    Control(
        "temperature-ignored",
        "logprobs are scored at temperature 1, whatever the rollout sampled at",
        "radixark/miles#1345, huggingface/trl#4159",
        LANGUAGE,
        "a temperature other than 1",
        tempered=True,
        path=PathName("prefill"),
        side="rescore",
        generate=1,
        scores_prompt=True,
    ),
    Control(
        "log-of-softmax",
        "one side computes log(softmax(x)), the other log_softmax(x)",
        "sgl-project/sglang#30821",
        LANGUAGE,
        "nothing more",
        path=PathName("prefill"),
        side="rescore",
        generate=1,
        scores_prompt=True,
    ),
    Control(
        "retokenised",
        "the rescoring side gets text and encodes it again",
        "vllm-project/vllm#53692",
        LANGUAGE,
        "a workload that generates at least 2 tokens",
        side="handover",
    ),
    Control(
        "unequal-lengths",
        "the rescoring side returns fewer tokens, and the rest is cut off",
        "pytorch/torchtitan test_bitwise_parity.py",
        EVERY,
        "a workload that generates at least 2 tokens",
        expect="void",
        side="handover",
    ),
    Control(
        "wrong-input",
        "another prompt is computed than the one that is reported: consistent, and wrong",
        "sgl-project/sglang#31501",
        EVERY,
        "an accuracy check",
        relations=("accuracy",),
        path=PathName("prefill"),
        generate=1,
    ),
)

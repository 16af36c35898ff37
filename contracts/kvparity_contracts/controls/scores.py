"""Scores and inputs: equal logits, other logprobs; other tokens than the reported ones."""

from __future__ import annotations

from kvparity_contracts.controls.base import BY_IDS, EVERY, Control, scores
from kvparity_contracts.paths import PathName

SCORES = (
    scores(
        "temperature-ignored",
        "logprobs are scored at temperature 1, whatever the rollout sampled at",
        "radixark/miles#1345, huggingface/trl#4159",
        side="rescore",
        tempered=True,
    ),
    scores(
        "log-of-softmax",
        "one side computes log(softmax(x)), the other log_softmax(x)",
        "sgl-project/sglang#30821",
        side="rescore",
    ),
    Control(
        "retokenised",
        "the rescoring side gets text and encodes it again",
        "vllm-project/vllm#53692",
        subjects=BY_IDS,
        side="handover",
        features=("ascii",),
        cause="weights or tokens",
        born="tokens",
    ),
    Control(
        "id-reported-as-another",
        "one id of an answer reaches the rescoring side as another",
        "sgl-project/sglang#17240",
        subjects=("server",),
        paths=("batched",),
        path=PathName("batched"),
        side="handover",
        cause="weights or tokens",
        born="tokens",
    ),
    Control(
        "unequal-lengths",
        "the rescoring side returns fewer tokens, and the rest is cut off",
        "pytorch/torchtitan test_bitwise_parity.py",
        subjects=(*EVERY, "server"),
        expect="void",
        side="handover",
    ),
    scores(
        "wrong-input",
        "another prompt is computed than the one that is reported: consistent, and wrong",
        "sgl-project/sglang#31501",
        subjects=EVERY,
        relations=("accuracy",),
        scores_prompt=False,
        cause=None,
        born=None,
    ),
)

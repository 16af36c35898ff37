"""Controls of parity checks: what makes a trainer's logprobs another rollout's."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import Control

_sides = partial(Control, subjects=("sides",), relations=("parity",), side="sides")

OF_SIDES = (
    _sides(
        "unscaled-logprobs",
        "the rollout's logprobs are before a temperature of 0.8, the trainer's behind it",
        "huggingface/trl#4159",
    ),
    _sides(
        "shifted-logprobs",
        "each stored logprob belongs to the token before",
        "modelscope/ms-swift#8196",
    ),
    _sides(
        "stored-zero",
        "one logprob is missing, and is stored as 0",
        "NVIDIA-NeMo/RL#4218",
    ),
    _sides(
        "foreign-sequence",
        "sequences have the logprobs of their neighbours, cut or repeated to their length",
        "google/tunix#820",
    ),
    _sides(
        "dropped-sequences",
        "one sequence more than may be unmatched has no counterpart",
        "PrimeIntellect-ai/prime-rl#2277",
        expect="void",
    ),
    _sides(
        "doubled-first-token",
        "each prompt is scored with its first token twice, as if a template and a tokenizer added "
        "it",
        "huggingface/trl#3853",
        features=("scoring-side",),
    ),
    _sides(
        "stale-weights",
        "a model scores with weights that are 1 % off",
        "huggingface/trl#5312",
        features=("model-side",),
    ),
    _sides(
        "other-dtype",
        "a model computes in another format",
        "NVIDIA-NeMo/RL#1801",
        features=("model-side", "one-format"),
    ),
)

"""What is not the same in another process, or the second time."""

from __future__ import annotations

from functools import partial

from kvparity_contracts.controls.base import EVERY, Control
from kvparity_contracts.paths import PREFILL

_again = partial(Control, subjects=EVERY, relations=("reproduction",), path=PREFILL, generate=1)

REPEATS = (
    _again(
        "bits-by-chance",
        "an operation adds in an order, or draws numbers, that nobody fixed",
        "turboderp-org/exllamav3#353",
    ),
    _again(
        "bits-by-process",
        "what is computed depends on Python's hash seed, or on an address",
        "vllm-project/vllm#51875, LMCache/LMCache#1139",
    ),
    _again(
        "bits-by-history",
        "what an earlier call left in the process decides how the next one computes",
        "syv-ai/qwen38-27b-rtx3090#75",
    ),
)

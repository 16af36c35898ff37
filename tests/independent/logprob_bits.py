"""Do two sets of logits give the same logprob bits? Prints its answer as JSON.

    python logprob_bits.py A.safetensors B.safetensors [TEMPERATURE]

Each file: ``logits`` float32 ``[tokens, vocab]`` and ``targets`` int64 ``[tokens]``, or ready
``logprobs`` float32 ``[tokens]``. A logprob is log_softmax of logits / temperature, computed in
float64 and rounded once to float32.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def logprobs(logits: np.ndarray, targets: np.ndarray, temperature: float) -> np.ndarray:
    """Float64 ``[tokens]``: x_t - log(sum(exp(x))), the largest x taken out first."""
    scaled = logits.astype(np.float64) / temperature
    with np.errstate(invalid="ignore"):
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled).sum(axis=1))
    return scaled[np.arange(len(targets)), targets] - total


def steps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many float32 steps apart: -0 and +0 are one step apart."""

    def ladder(x: np.ndarray) -> np.ndarray:
        pattern = x.view(np.uint32).astype(np.int64)
        return np.where(pattern >> 31 == 1, -(pattern & 0x7FFFFFFF) - 1, pattern)

    return np.abs(ladder(a) - ladder(b))


def scored(side: Mapping[str, np.ndarray], temperature: float) -> np.ndarray:
    """The float32 logprobs of one side."""
    if "logprobs" in side:
        return side["logprobs"]
    return logprobs(side["logits"], side["targets"], temperature).astype(np.float32)


def answer(
    a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], temperature: float = 1.0
) -> dict[str, Any]:
    """``rows``: the tokens that differ, by number; ``unfinite``: those with a NaN or an Inf."""
    left, right = scored(a, temperature), scored(b, temperature)
    if left.shape != right.shape or not len(left):
        return {"equal": None, "tokens": [len(left), len(right)]}
    bad = ~(np.isfinite(left) & np.isfinite(right))
    off = (left.view(np.uint32) != right.view(np.uint32)) | bad
    rows = np.flatnonzero(off)
    first = int(rows[0]) if len(rows) else None
    return {
        "equal": not len(rows),
        "tokens": len(left),
        "differing_tokens": len(rows),
        "max_ulp": int(steps(left, right)[~bad].max()) if not bad.all() else None,
        "rows": rows.tolist(),
        "unfinite": np.flatnonzero(bad).tolist(),
        "first": first,
        "bits": None if first is None else [f"0x{x.view(np.uint32)[first]:08x}"
                                            for x in (left, right)],
    }  # fmt: skip


if __name__ == "__main__":
    one, other = (load_file(name) for name in sys.argv[1:3])
    print(json.dumps(answer(one, other, float(sys.argv[3]) if len(sys.argv) > 3 else 1.0)))

"""How far is what a path gave from float64? Prints its answer as JSON.

    python float64_accuracy.py FOUND.safetensors EXACT.safetensors [TEMPERATURE]

Of a language model: FOUND has ``logprobs`` float32 ``[tokens]``, EXACT ``logits`` float64 and
``targets``. Of a kernel pair: FOUND has ``out`` float32 ``[rows, heads, dim]``, EXACT ``q`` of that
shape, ``k`` and ``v`` ``[rows, keys, kv_heads, dim]``, ``lengths`` ``[rows]`` (keys that a row
sees) and ``scale`` ``[1]``: attention is computed here, naively.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def attention(exact: Mapping[str, np.ndarray]) -> np.ndarray:
    """Float64 ``[rows, heads, dim]``: softmax(scale * q.k) v, one row and one head at a time."""
    q, k, v = (exact[name].astype(np.float64) for name in "qkv")
    out = np.empty_like(q)
    group = q.shape[1] // k.shape[2]
    for row, length in enumerate(exact["lengths"]):
        for head in range(q.shape[1]):
            keys = k[row, :length, head // group]
            scores = keys @ q[row, head] * float(exact["scale"][0])
            weights = np.exp(scores - scores.max())
            out[row, head] = weights @ v[row, :length, head // group] / weights.sum()
    return out


def exact_logprobs(exact: Mapping[str, np.ndarray], temperature: float) -> np.ndarray:
    """Float64 ``[tokens]``."""
    logits = exact["logits"].astype(np.float64) / temperature
    chosen = logits[np.arange(len(logits)), exact["targets"]]
    top = logits.max(axis=1)
    return chosen - top - np.log(np.exp(logits - top[:, None]).sum(axis=1))


def answer(
    found: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray], temperature: float = 1.0
) -> dict[str, Any]:
    """The farthest element and where it is; of logprobs also the means over d = exact - found."""
    if "out" in found:
        error = np.abs(found["out"].astype(np.float64) - attention(exact))
        row = int(error.max(axis=(1, 2)).argmax())
        column = int(error[row].argmax())
        return {"rows": len(error), "max_abs": float(error.max()), "worst": row, "column": column}
    d = exact_logprobs(exact, temperature) - found["logprobs"].astype(np.float64)
    ratio = np.exp(d)
    return {
        "tokens": len(d),
        "max_abs_dlogp": float(np.abs(d).max()),
        "approx_kl0": float(np.mean(np.expm1(d) - d)),
        "clipfrac0": float(np.mean((ratio < 0.8) | (ratio > 1.2))),
        "worst": int(np.abs(d).argmax()),
    }


if __name__ == "__main__":
    one, other = (load_file(name) for name in sys.argv[1:3])
    print(json.dumps(answer(one, other, float(sys.argv[3]) if len(sys.argv) > 3 else 1.0)))

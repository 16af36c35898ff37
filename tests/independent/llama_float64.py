"""The logits of a Llama in float64, naively: one position and one head at a time.

    python llama_float64.py MODEL.safetensors CONFIG.json ID ID ...

MODEL and CONFIG as transformers saves them. Prints the logits after the last id as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def normed(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Divided by its root mean square."""
    return x / np.sqrt((x * x).mean() + eps) * weight


def turned(x: np.ndarray, position: int, theta: float) -> np.ndarray:
    """``x`` [dim]: element i and element i + dim/2 turn together by position / theta^(2i/dim)."""
    half = len(x) // 2
    angle = position / theta ** (np.arange(half) / half)
    a, b = x[:half], x[half:]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
    )


def logits(
    weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: Sequence[int]
) -> np.ndarray:
    """Float64 ``[len(ids), vocab]``."""
    w = {name.removeprefix("model."): x.astype(np.float64) for name, x in weights.items()}
    eps, heads, kv = (config[name] for name in
                      ("rms_norm_eps", "num_attention_heads", "num_key_value_heads"))  # fmt: skip
    dim = config.get("head_dim") or config["hidden_size"] // heads
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    xs = [w["embed_tokens.weight"][each] for each in ids]
    for layer in range(config["num_hidden_layers"]):
        own = {n.removeprefix(f"layers.{layer}."): x for n, x in w.items()
               if n.startswith(f"layers.{layer}.")}  # fmt: skip
        keys: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for p, x in enumerate(xs):
            h = normed(x, own["input_layernorm.weight"], eps)
            q, k, v = (
                (own[f"self_attn.{name}_proj.weight"] @ h).reshape(-1, dim) for name in "qkv"
            )
            keys.append(np.stack([turned(each, p, theta) for each in k]))
            values.append(v)
            out = []
            for head in range(heads):
                group = head * kv // heads
                scores = np.array([turned(q[head], p, theta) @ each[group] for each in keys])
                share = np.exp((scores - scores.max()) / np.sqrt(dim))
                seen = np.stack([each[group] for each in values])
                out.append(share @ seen / share.sum())
            x = x + own["self_attn.o_proj.weight"] @ np.concatenate(out)
            h = normed(x, own["post_attention_layernorm.weight"], eps)
            gate, up = (own[f"mlp.{name}_proj.weight"] @ h for name in ("gate", "up"))
            xs[p] = x + own["mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)
    head = w.get("lm_head.weight", w["embed_tokens.weight"])
    return np.stack([head @ normed(x, w["norm.weight"], eps) for x in xs])


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[2]).read_text())
    found = logits(load_file(sys.argv[1]), settings, [int(each) for each in sys.argv[3:]])
    print(json.dumps({"logits": found[-1].tolist()}))

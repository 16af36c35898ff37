"""The same decoder in float64: plain torch, no cache, no kernels.

It starts from the stored weights (already rounded to the execution dtype) and from the float32
RoPE tables, which are part of the model; everything else is float64. Hugging Face's float64 models
are less exact: their RMSNorm still computes in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kvparity.decoder.config import DecoderConfig
from kvparity.decoder.weights import LayerWeights, Weights
from kvparity_kernels.attention.naive import attend

QUERIES = 256  # attended at once: bounds the score matrix


def logits(
    config: DecoderConfig,
    weights: Weights,
    cos: Tensor,
    sin: Tensor,
    ids: Sequence[int],
    rows: range,
) -> Tensor:
    """Float64 logits ``[len(rows), vocab]`` of the positions ``rows`` of one sequence."""
    tokens = torch.tensor(ids[: rows.stop], dtype=torch.int64).to(weights.embed.device)
    c, s = cos[: len(tokens)].double(), sin[: len(tokens)].double()
    x = weights.embed[tokens].double()
    for layer in weights.layers:
        x = x + _attention(config, layer, _norm(x, layer.input_norm, config.rms_eps), c, s)
        x = x + _mlp(layer, _norm(x, layer.post_norm, config.rms_eps))
    wanted = _norm(x[rows.start : rows.stop], weights.final_norm, config.rms_eps)
    return wanted @ weights.head.double().T


def _attention(
    config: DecoderConfig, layer: LayerWeights, x: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    stacked = _linear(x, layer.qkv, layer.qkv_bias).view(len(x), -1, config.head_dim)
    q, k, v = torch.split(stacked, [config.heads, config.kv_heads, config.kv_heads], dim=1)
    if layer.q_norm is not None and layer.k_norm is not None:
        q = _norm(q, layer.q_norm, config.rms_eps)
        k = _norm(k, layer.k_norm, config.rms_eps)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    parts = []
    for start in range(0, len(q), QUERIES):
        stop = min(start + QUERIES, len(q))
        parts.append(attend(q[start:stop], k[:stop], v[:stop], scale=config.scale)[0])
    return _linear(torch.cat(parts).flatten(1), layer.o, layer.o_bias)


def _mlp(layer: LayerWeights, x: Tensor) -> Tensor:
    gate, up = _linear(x, layer.gate_up, layer.gate_up_bias).chunk(2, dim=1)
    return _linear(functional.silu(gate) * up, layer.down, layer.down_bias)


def _linear(x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    y = x @ w.double().T
    return y if bias is None else y + bias.double()


def _norm(x: Tensor, w: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w.double()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs are (i, i + head_dim/2), as in Hugging Face's ``rotate_half``."""
    low, high = x.chunk(2, dim=-1)
    c, s = cos[:, None, :], sin[:, None, :]
    return torch.cat([low * c - high * s, high * c + low * s], dim=-1)

"""The same decoder in float64: plain torch, no cache, no kernels.

It starts from the stored weights (already rounded to the execution dtype), from the float32 RoPE
tables, which are part of the model, and from the declared store: where a cache cannot hold what is
computed (``StoreFormat.exact_for``), keys and values are rounded to its grid, position by position,
before they are attended. Everything else is float64. So an accuracy limit bounds how far the
execution is from what was declared, and stays tight for a cache of 4 bits; what the declared store
itself costs is no matter of correctness, and ``kvparity codec`` measures it. Near the middle of two
codes the execution may take the other one, which moves one key by one step: limits over a coarse
store are wider for that. Hugging Face's float64 models are less exact: their RMSNorm still computes
in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import Layer, layers_of
from kvparity.subjects.decoder.weights import DecoderWeights, LayerWeights
from kvparity_kernels.attention.naive import attend
from kvparity_kernels.store import StoreFormat, round_trip

QUERIES = 256  # attended at once: bounds the score matrix


def logits(
    config: DecoderShape,
    weights: DecoderWeights,
    cos: Tensor,
    sin: Tensor,
    ids: Sequence[int],
    rows: Sequence[int],
    *,
    store: StoreFormat | None = None,
) -> Tensor:
    """Float64 logits ``[len(rows), vocab]`` of the positions ``rows`` of one sequence.

    ``store``: what the cache stores (None: what is computed).
    """
    tokens = torch.tensor(ids[: rows[-1] + 1], dtype=torch.int64).to(weights.embed.device)
    lossy = store is not None and not store.exact_for(weights.embed.dtype)
    c, s = cos[: len(tokens)].double(), sin[: len(tokens)].double()
    x = weights.embed[tokens].double()
    held: list[tuple[Tensor, Tensor]] = []
    for kind, layer in zip(layers_of(config), weights.layers, strict=True):
        normed = _norm(x, layer.input_norm, config.rms_eps)
        stacked = _linear(normed, layer.qkv, layer.qkv_bias).view(len(x), -1, kind.head_dim)
        if not kind.follower:
            k, v = stacked[:, config.heads :].chunk(2, dim=1)
            if layer.k_norm is not None:
                k = _norm(k, layer.k_norm, config.rms_eps)
            k = _rotate(k, c, s)
            if lossy and store is not None:
                k, v = _rounded(k, store, layer.k_scale), _rounded(v, store, layer.v_scale)
            held.append((k, v))
        q = stacked[:, : config.heads]
        if layer.q_norm is not None:
            q = _norm(q, layer.q_norm, config.rms_eps)
        q = _rotate(functional.pad(q, (0, config.head_dim - kind.head_dim)), c, s)
        mixed = _attention(config, kind, layer, q, *held[kind.stored])
        x = x + _linear(mixed[..., : kind.head_dim].flatten(1), layer.o, layer.o_bias)
        normed = _norm(x, layer.post_norm, config.rms_eps)
        gate, up = _linear(normed, layer.gate_up, layer.gate_up_bias).chunk(2, dim=1)
        x = x + _linear(functional.silu(gate) * up, layer.down, layer.down_bias)
    wanted = _norm(x[list(rows)], weights.final_norm, config.rms_eps)
    return wanted @ weights.head.double().T


def _rounded(x: Tensor, store: StoreFormat, scale: Tensor | None) -> Tensor:
    """What the store keeps, without a rounding to the execution dtype behind it."""
    return round_trip(x.float(), store, scale if store.static else None, torch.float32).double()


def _attention(
    config: DecoderShape, kind: Layer, layer: LayerWeights, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    parts = []
    for start in range(0, len(q), QUERIES):
        stop = min(start + QUERIES, len(q))
        out, _ = attend(
            q[start:stop], k[:stop], v[:stop], scale=kind.scale, window=kind.window,
            softcap=config.attention_softcap, sinks=layer.sinks,
        )  # fmt: skip
        parts.append(out)
    return torch.cat(parts)


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

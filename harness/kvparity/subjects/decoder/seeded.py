"""Weights drawn from (seed, tensor name, element index): the same bits on every device.

The stream is SplitMix64 (``core.rng``) in int64 arithmetic, its top 24 bits turned into a uniform
number; no transcendental function is involved, so CPU and CUDA draw the same weights.

How they are scaled, so that logprobs are lively and every stored key matters:

- logits have a standard deviation of ``sqrt(2 (ln V - 4))``: the entropy of a softmax of such
  Gaussian logits is about 4 nats, so sampled logprobs lie around -4 at every vocabulary size.
- query-key scores have a standard deviation of about 2, by the weights of the q/k norms or of the
  q and k projections: attention looks at few keys, and at other ones in every row.
- what a layer adds to the residual stream is as large as the embedding that it starts from.
- the final norm's weights have random signs: in a tied model a token would else mostly predict
  itself.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.core.rng import shift_right, splitmix64
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import layers_of
from kvparity.subjects.decoder.weights import DecoderWeights, Shape, assemble, tensor_shapes
from kvparity_kernels.store import StoreFormat

ENTROPY = 4.0  # nats, of the next token
SCORE_STD = 2.0  # of query-key products after scaling
SCALE, SCALE_SPREAD = 3 / 128, 1 / 128  # fp8 scales: 1/64 .. 1/32, so 448 codes 7 or more

_CHUNK = 1 << 22  # elements drawn at once: bounds the int64 temporaries


def seeded(
    config: DecoderShape, seed: int, dtype: torch.dtype, device: torch.device
) -> DecoderWeights:
    """All weights of ``config``, drawn in float32 and rounded to ``dtype``."""
    shapes = tensor_shapes(config)

    def get(name: str) -> Tensor:
        return draw(config, name, shapes[name], seed, dtype, device)

    return assemble(config, get)


def draw(
    config: DecoderShape,
    name: str,
    shape: Shape,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """One tensor, by its Hugging Face name."""
    kind = name.rsplit(".", 2)[-2]
    out = torch.empty(math.prod(shape), dtype=dtype, device=device)
    for start in range(0, out.numel(), _CHUNK):
        stop = min(start + _CHUNK, out.numel())
        bits = _bits(seed, name, start, stop, device)
        if name.endswith(".sinks"):
            part = _uniform(bits, 2.0 / math.sqrt(3.0)) + 1.0
        elif name.endswith("norm.weight"):
            part = _norm_weight(config, kind, bits)
        elif name.endswith(".bias"):
            part = _uniform(bits, 0.25)
        else:
            part = _uniform(bits, _gain(config, kind) / math.sqrt(shape[1]))
        out[start:stop] = part.to(dtype)
    return out.view(shape)


def with_scales(
    config: DecoderShape, weights: DecoderWeights, form: StoreFormat, seed: int
) -> DecoderWeights:
    """The same weights with static scales for a cache of ``form``, if it takes any.

    Each is drawn from (seed, layer, keys or values, head); a format per tensor takes that of head
    0 for all heads.
    """
    if not form.static:
        return weights
    device = weights.embed.device

    def scale(layer: int, which: str) -> Tensor:
        bits = _bits(seed, f"model.layers.{layer}.self_attn.{which}", 0, config.kv_heads, device)
        drawn = _uniform(bits, SCALE_SPREAD / math.sqrt(3.0)) + SCALE
        return drawn if form.per_head else drawn[:1].expand(config.kv_heads).contiguous()

    layers = tuple(
        layer
        if kind.follower
        else replace(layer, k_scale=scale(number, "k_scale"), v_scale=scale(number, "v_scale"))
        for number, (kind, layer) in enumerate(zip(layers_of(config), weights.layers, strict=True))
    )
    return replace(weights, layers=layers)


def _gain(config: DecoderShape, kind: str) -> float:
    """Standard deviation of a projection's output for inputs of unit size."""
    logit_std = math.sqrt(2 * max(math.log(config.vocab) - ENTROPY, 1.0))
    residual = logit_std / math.sqrt(config.hidden) if config.tied else 1.0
    if kind == "embed_tokens":
        return residual * math.sqrt(config.hidden)
    if kind == "lm_head":
        return logit_std
    if kind in ("q_proj", "k_proj"):
        return 1.0 if config.qk_norm else math.sqrt(SCORE_STD)
    if kind in ("o_proj", "down_proj"):
        return 2.0 * residual
    return 1.0


def _norm_weight(config: DecoderShape, kind: str, bits: Tensor) -> Tensor:
    """Around 1; q/k norms carry the score size, the final norm (``model.norm``) random signs."""
    spread = _uniform(bits, 0.25)
    if kind in ("q_norm", "k_norm"):
        return spread + float(torch.tensor(math.sqrt(SCORE_STD), dtype=torch.float32))
    around_one = spread + 1.0
    if kind == "norm":
        return torch.where(bits & 1 == 0, around_one, -around_one)
    return around_one


def _uniform(bits: Tensor, std: float) -> Tensor:
    """Float32, zero mean: the top 24 bits as an odd integer (exact) times one float32 factor."""
    integer = 2 * shift_right(bits, 40) + 1 - (1 << 24)
    factor = float(torch.tensor(std * math.sqrt(3.0) / (1 << 24), dtype=torch.float32))
    return integer.to(torch.float32) * factor


def _bits(seed: int, name: str, start: int, stop: int, device: torch.device) -> Tensor:
    """Outputs ``start .. stop-1`` of the stream of a name, int64."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    return splitmix64(key, torch.arange(start + 1, stop + 1, dtype=torch.int64, device=device))

"""The tensors of a decoder: their Hugging Face names and shapes, and how the forward holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import Layer, layers_of

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerWeights:
    """One layer. Matrices are ``[outputs, inputs]``; what reads the same input is stacked.

    ``qkv``: query, key and value rows (of a layer that reads another one's cache: query rows);
    ``gate_up``: gate rows, then up rows. Stacking changes no number (every output is its own dot
    product) and halves the launches. ``sinks`` float32 ``[heads]``; ``k_scale``, ``v_scale``
    float32 ``[kv_heads]``: of a cache in fp8 (None: 1).
    """

    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Tensor
    o_bias: Tensor | None
    post_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None
    sinks: Tensor | None = None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None


@dataclass(frozen=True)
class DecoderWeights:
    """All tensors of a decoder, in its execution dtype, on its device. Tied: ``head is embed``."""

    embed: Tensor
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    head: Tensor

    def tensors(self) -> Iterator[Tensor]:
        """Every stored tensor once."""
        yield self.embed
        for layer in self.layers:
            for field in fields(layer):
                value = getattr(layer, field.name)
                if value is not None:
                    yield value
        yield self.final_norm
        if self.head is not self.embed:
            yield self.head


def tensor_shapes(config: DecoderShape) -> dict[str, Shape]:
    """Every tensor that a checkpoint of this configuration holds: name and shape."""
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab, config.hidden)}
    for number, layer in enumerate(layers_of(config)):
        at = f"model.layers.{number}."
        shapes |= {at + name: shape for name, shape in _layer_shapes(config, layer).items()}
    shapes["model.norm.weight"] = (config.hidden,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab, config.hidden)
    return shapes


def _layer_shapes(config: DecoderShape, layer: Layer) -> dict[str, Shape]:
    hidden, inner = config.hidden, config.intermediate
    q, kv = config.heads * layer.head_dim, config.kv_heads * config.head_dim
    linears: dict[str, tuple[int, int, bool]] = {
        "self_attn.q_proj": (q, hidden, config.qkv_bias),
        "self_attn.k_proj": (kv, hidden, config.qkv_bias),
        "self_attn.v_proj": (kv, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, q, config.o_bias),
        "mlp.gate_proj": (inner, hidden, config.mlp_bias),
        "mlp.up_proj": (inner, hidden, config.mlp_bias),
        "mlp.down_proj": (hidden, inner, config.mlp_bias),
    }
    shapes: dict[str, Shape] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (layer.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    if config.attention_sinks:
        shapes["self_attn.sinks"] = (config.heads,)
    if layer.follower:
        del linears["self_attn.k_proj"], linears["self_attn.v_proj"]
        shapes.pop("self_attn.k_norm.weight", None)
    for name, (outputs, inputs, bias) in linears.items():
        shapes[name + ".weight"] = (outputs, inputs)
        if bias:
            shapes[name + ".bias"] = (outputs,)
    return shapes


def assemble(config: DecoderShape, get: Callable[[str], Tensor]) -> DecoderWeights:
    """Build the weights from ``get(name)``, called once for every name of ``tensor_shapes``."""
    embed = get("model.embed_tokens.weight")
    layers = tuple(
        _layer(config, layer, f"model.layers.{number}.", get)
        for number, layer in enumerate(layers_of(config))
    )
    final_norm = get("model.norm.weight")
    head = embed if config.tied else get("lm_head.weight")
    return DecoderWeights(embed, layers, final_norm, head)


def _layer(
    config: DecoderShape, layer: Layer, at: str, get: Callable[[str], Tensor]
) -> LayerWeights:
    def stacked(names: tuple[str, ...], kind: str, present: bool = True) -> Tensor | None:
        if not present:
            return None
        parts = [get(f"{at}{name}.{kind}") for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def matrix(*names: str) -> Tensor:
        found = stacked(names, "weight")
        assert found is not None
        return found

    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    qkv = qkv[:1] if layer.follower else qkv
    gate_up = ("mlp.gate_proj", "mlp.up_proj")
    return LayerWeights(
        input_norm=matrix("input_layernorm"),
        qkv=matrix(*qkv),
        qkv_bias=stacked(qkv, "bias", config.qkv_bias),
        q_norm=stacked(("self_attn.q_norm",), "weight", config.qk_norm),
        k_norm=stacked(("self_attn.k_norm",), "weight", config.qk_norm and not layer.follower),
        o=matrix("self_attn.o_proj"),
        o_bias=stacked(("self_attn.o_proj",), "bias", config.o_bias),
        post_norm=matrix("post_attention_layernorm"),
        gate_up=matrix(*gate_up),
        gate_up_bias=stacked(gate_up, "bias", config.mlp_bias),
        down=matrix("mlp.down_proj"),
        down_bias=stacked(("mlp.down_proj",), "bias", config.mlp_bias),
        sinks=get(f"{at}self_attn.sinks").float() if config.attention_sinks else None,
    )


_BITS = {2: torch.int16, 4: torch.int32}
_CHUNK = 1 << 24


def fingerprint(weights: DecoderWeights) -> str:
    """A 64-bit digest of all weights, as hex: integer arithmetic, so the same on every device.

    Each element's bits are multiplied by an odd number that depends on its place, and summed
    modulo 2**64. It names what was loaded; it is no defence against forgery.
    """
    total = 0
    for number, tensor in enumerate(weights.tensors()):
        salt = (number * 0x3F58476D1CE4E5B9) % (1 << 63)
        flat = tensor.reshape(-1).view(_BITS[tensor.element_size()])
        for start in range(0, flat.numel(), _CHUNK):
            part = flat[start : start + _CHUNK].to(torch.int64)
            place = torch.arange(start, start + part.numel(), device=part.device)
            odd = (place * 0x1E3779B97F4A7C15 + salt) | 1
            total += int((part * odd).sum())
    return f"{total % (1 << 64):016x}"

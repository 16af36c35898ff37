"""The shape of a decoder, read from the keys of a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.decoder.config import (
    FAMILIES,
    DecoderShape,
    Family,
    LayerType,
    Llama3Scaling,
)
from kvparity_contracts.json_types import JsonObject

MOST_LAYERS = 4096
"""Far above that of any model: the names of all tensors are listed before one is read."""


def from_hf(data: JsonObject, *, where: str) -> DecoderShape:
    """Read the keys of a Hugging Face configuration (both the v4 and the v5 RoPE keys).

    Missing optional keys take the defaults of transformers' ``LlamaConfig``, ``Qwen2Config`` and
    ``Qwen3Config``. Raises ``UnsupportedError`` for a missing or unusable value and for a
    feature that this decoder does not have.
    """
    keys = _ConfigKeys(data, where)
    family = data.get("model_type")
    if family not in FAMILIES:
        raise UnsupportedError(
            f"{where}: model_type is {family!r}; this decoder reads {', '.join(FAMILIES)}"
        )
    _refuse_features(keys)
    heads = keys.integer("num_attention_heads")
    hidden = keys.integer("hidden_size")
    theta, scaling = _rope(keys)
    if "head_dim" in data and data["head_dim"] is not None:
        head_dim = keys.integer("head_dim")
    elif family == "qwen3":
        head_dim = 128
    else:
        head_dim = hidden // heads
    bias = keys.flag("attention_bias")
    layers = keys.integer("num_hidden_layers")
    if layers > MOST_LAYERS:
        raise UnsupportedError(
            f"{where}: num_hidden_layers is {layers}; expected at most {MOST_LAYERS}"
        )
    window, types = _windows(keys, family, layers)
    return DecoderShape(
        family=family,
        vocab=keys.integer("vocab_size"),
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", heads if family == "llama" else None),
        head_dim=head_dim,
        intermediate=keys.integer("intermediate_size"),
        max_positions=keys.integer("max_position_embeddings"),
        rms_eps=keys.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        qk_norm=family == "qwen3",
        qkv_bias=bias or family == "qwen2",
        o_bias=bias and family != "qwen2",
        mlp_bias=family == "llama" and keys.flag("mlp_bias"),
        tied=keys.flag("tie_word_embeddings"),
        sliding_window=window,
        layer_types=types,
    )


@dataclass(frozen=True)
class _ConfigKeys:
    """Typed access to a configuration, with the file in every error."""

    data: JsonObject
    where: str

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise UnsupportedError(f"{self.where}: {name} must be an integer, found {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UnsupportedError(f"{self.where}: {name} must be a number, found {value!r}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self.data.get(name)
        if value not in (None, True, False):
            raise UnsupportedError(f"{self.where}: {name} must be true or false, found {value!r}")
        return bool(value)

    def part(self, name: str) -> JsonObject:
        value = self.data.get(name) or {}
        if not isinstance(value, Mapping):
            raise UnsupportedError(f"{self.where}: {name} must be an object, found {value!r}")
        return value

    def kinds(self, name: str) -> list[str]:
        value = self.data.get(name) or ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UnsupportedError(f"{self.where}: {name} must be a list, found {value!r}")
        return [str(each) for each in value]


def _refuse_features(keys: _ConfigKeys) -> None:
    data, where = keys.data, keys.where
    activation = data.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedError(f"{where}: hidden_act is {activation!r}; only silu is supported")
    if data.get("quantization_config") is not None:
        raise UnsupportedError(f"{where}: quantised checkpoints are not supported")


def _windows(keys: _ConfigKeys, family: Family, layers: int) -> tuple[int, tuple[LayerType, ...]]:
    """``sliding_window`` and ``layer_types``, as transformers' Qwen configurations read them.

    ``use_sliding_window`` switches the window on; layers from ``max_window_layers`` on then slide,
    or those that ``layer_types`` names. Llama has no window there, and a configuration with one is
    refused.
    """
    data, where = keys.data, keys.where
    kinds = keys.kinds("layer_types")
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedError(
            f"{where}: {min(unknown)} is not supported, only full_attention and sliding_attention"
        )
    window = data.get("sliding_window")
    on = family != "llama" and keys.flag("use_sliding_window") and window is not None
    # Qwen configurations carry a sliding_window that use_sliding_window switches off.
    unswitched = window is not None and (family == "llama" or "use_sliding_window" not in data)
    if not on and ("sliding_attention" in kinds or unswitched):
        found = f"sliding_window {window}" if unswitched else "a sliding_attention layer"
        if family == "llama":
            raise UnsupportedError(f"{where}: {found} is not supported: a llama has no window")
        raise UnsupportedError(
            f"{where}: {found} without use_sliding_window and sliding_window is not supported"
        )
    if not on:
        return 0, ()
    start = keys.integer("max_window_layers", 28)
    types: tuple[LayerType, ...] = tuple(
        "sliding" if (kinds[n] == "sliding_attention" if kinds else n >= start) else "full"
        for n in range(len(kinds) or layers)
    )
    return (keys.integer("sliding_window"), types) if "sliding" in types else (0, ())


def _rope(keys: _ConfigKeys) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling, from ``rope_theta`` + ``rope_scaling`` (v4) or ``rope_parameters`` (v5)."""
    data, where = keys.data, keys.where
    merged = {**keys.part("rope_scaling"), **keys.part("rope_parameters")}
    if "rope_theta" not in merged and data.get("rope_theta") is not None:
        merged["rope_theta"] = data["rope_theta"]
    rope = _ConfigKeys(merged, f"{where}: RoPE")
    rotary = merged.get("partial_rotary_factor", data.get("partial_rotary_factor"))
    if rotary not in (None, 1, 1.0):
        raise UnsupportedError(f"{where}: partial_rotary_factor {rotary} is not supported")
    theta = rope.number("rope_theta", 10000.0)
    kind = merged.get("rope_type", merged.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UnsupportedError(
            f"{where}: RoPE scaling {kind!r} is not supported, only default and llama3"
        )
    return theta, Llama3Scaling(
        factor=rope.number("factor"),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
        original_max_positions=rope.integer(
            "original_max_position_embeddings", keys.integer("max_position_embeddings")
        ),
    )

"""The shape of a decoder, read from the keys of a Hugging Face ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from kvparity.subject import UnsupportedError
from kvparity_contracts.decoder import DecoderConfig as ContractConfig

Family = Literal["llama", "qwen2", "qwen3"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "qwen3")
LayerType = Literal["full", "sliding"]


@dataclass(frozen=True)
class Llama3Scaling:
    """RoPE scaling of Llama 3.1 (``rope_type: llama3``)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and switches of one decoder. All sizes in elements.

    ``sliding_window``: keys that a query of a sliding layer sees, its own included (0: no layer
    slides). ``layer_types``: one for each layer; empty: all slide if there is a window.
    ``kv_shared_layers``: so many layers at the end read the cache of another one, with query heads
    of ``shared_head_dim`` (0: ``head_dim``). ``attention_softcap`` c: scores become c tanh(s / c)
    (0: none). ``attention_sinks``: each query head has a learned logit in its denominator.
    """

    family: Family
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    max_positions: int
    rms_eps: float
    rope_theta: float = 10000.0
    rope_scaling: Llama3Scaling | None = None
    qk_norm: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    sliding_window: int = 0
    layer_types: tuple[LayerType, ...] = ()
    kv_shared_layers: int = 0
    shared_head_dim: int = 0
    attention_softcap: float = 0.0
    attention_sinks: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that no decoder has."""
        for name in (
            "vocab", "hidden", "layers", "heads", "kv_heads", "head_dim", "intermediate",
            "max_positions",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UnsupportedError(f"decoder: {name} is {getattr(self, name)}, not positive")
        if self.heads % self.kv_heads:
            raise UnsupportedError(
                f"decoder: {self.heads} query heads cannot share {self.kv_heads} KV heads evenly"
            )
        if self.head_dim % 2:
            raise UnsupportedError(f"decoder: RoPE needs an even head_dim, not {self.head_dim}")
        if not 16 <= self.head_dim <= 256:
            raise UnsupportedError(
                f"decoder: head_dim is {self.head_dim}; the attention kernels take 16 to 256"
            )
        self._check_layers()

    def _check_layers(self) -> None:
        for name in ("sliding_window", "kv_shared_layers", "shared_head_dim", "attention_softcap"):
            if not getattr(self, name) >= 0:
                raise UnsupportedError(f"decoder: {name} is {getattr(self, name)}, not 0 or more")
        types = self.types
        if len(types) != self.layers:
            raise UnsupportedError(f"decoder: {len(types)} layer_types for {self.layers} layers")
        if "sliding" in types and not self.sliding_window:
            raise UnsupportedError("decoder: a sliding layer needs a sliding_window")
        if self.sliding_window and "sliding" not in types:
            raise UnsupportedError("decoder: sliding_window is given, but no layer slides")
        writing = self.layers - self.kv_shared_layers
        if writing < 1:
            raise UnsupportedError(
                f"decoder: {self.kv_shared_layers} of {self.layers} layers share the keys and "
                "values of another layer, so none is left to write them"
            )
        orphans = set(types[writing:]) - set(types[:writing])
        if orphans:
            raise UnsupportedError(
                f"decoder: a layer that shares keys and values is {min(orphans)}, but none of the "
                f"first {writing} is"
            )
        if self.shared_head_dim and not self.kv_shared_layers:
            raise UnsupportedError("decoder: shared_head_dim is given, but no layer is shared")
        if self.shared_head_dim % 2 or self.shared_head_dim > self.head_dim:
            raise UnsupportedError(
                f"decoder: shared_head_dim is {self.shared_head_dim}; it must be even and at most "
                f"head_dim ({self.head_dim})"
            )

    @property
    def types(self) -> tuple[LayerType, ...]:
        """The type of each layer."""
        if self.layer_types:
            return self.layer_types
        return ("sliding" if self.sliding_window else "full",) * self.layers

    @property
    def scale(self) -> float:
        """What query-key products are multiplied by."""
        return 1.0 / math.sqrt(self.head_dim)

    @property
    def q_width(self) -> int:
        """Elements of all query heads of one row."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of all key heads of one row."""
        return self.kv_heads * self.head_dim


def from_contract(stated: ContractConfig) -> DecoderConfig:
    """The configuration that a contract states. ``attention_bias`` means all four projections."""
    return DecoderConfig(
        family="qwen3" if stated.qk_norm else "llama",
        vocab=stated.vocab_size,
        hidden=stated.hidden_size,
        layers=stated.layers,
        heads=stated.heads,
        kv_heads=stated.kv_heads,
        head_dim=stated.head_dim,
        intermediate=stated.intermediate_size,
        max_positions=stated.max_positions,
        rms_eps=stated.rms_eps,
        rope_theta=stated.rope_theta,
        qk_norm=stated.qk_norm,
        qkv_bias=stated.attention_bias,
        o_bias=stated.attention_bias,
        tied=stated.tie_embeddings,
        sliding_window=stated.sliding_window or 0,
        layer_types=stated.layer_types or (),
        kv_shared_layers=stated.kv_shared_layers,
        shared_head_dim=stated.shared_head_dim or 0,
        attention_softcap=stated.attention_softcap or 0.0,
        attention_sinks=stated.attention_sinks,
    )


def from_hf(data: Mapping[str, Any], *, where: str) -> DecoderConfig:
    """Read the keys of a Hugging Face configuration (both the v4 and the v5 RoPE keys).

    Missing optional keys take the defaults of transformers' ``LlamaConfig``, ``Qwen2Config`` and
    ``Qwen3Config``. Raises ``UnsupportedError`` for a missing or unusable value and for a
    feature that this decoder does not have.
    """
    keys = _Keys(data, where)
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
    return DecoderConfig(
        family=cast(Family, family),
        vocab=keys.integer("vocab_size"),
        hidden=hidden,
        layers=keys.integer("num_hidden_layers"),
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
    )


@dataclass(frozen=True)
class _Keys:
    """Typed access to a configuration, with the file in every error."""

    data: Mapping[str, Any]
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


def _refuse_features(keys: _Keys) -> None:
    data, where = keys.data, keys.where
    activation = data.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedError(f"{where}: hidden_act is {activation!r}; only silu is supported")
    kinds = set(data.get("layer_types") or ()) - {"full_attention"}
    windowed = keys.flag("use_sliding_window") and data.get("sliding_window") is not None
    # Qwen configurations carry a sliding_window that use_sliding_window switches off.
    unswitched = data.get("sliding_window") is not None and "use_sliding_window" not in data
    if kinds or windowed or unswitched:
        found = ", ".join(sorted(kinds)) or f"sliding_window {data.get('sliding_window')}"
        raise UnsupportedError(f"{where}: {found} is not supported, only full attention")
    if data.get("quantization_config") is not None:
        raise UnsupportedError(f"{where}: quantised checkpoints are not supported")


def _rope(keys: _Keys) -> tuple[float, Llama3Scaling | None]:
    """Base and scaling, from ``rope_theta`` + ``rope_scaling`` (v4) or ``rope_parameters`` (v5)."""
    data, where = keys.data, keys.where
    merged = dict(data.get("rope_scaling") or {}) | dict(data.get("rope_parameters") or {})
    if "rope_theta" not in merged and data.get("rope_theta") is not None:
        merged["rope_theta"] = data["rope_theta"]
    rope = _Keys(merged, f"{where}: RoPE")
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

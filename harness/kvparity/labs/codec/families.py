"""The model families whose layer plans are known: what transformers fills in for each.

Defaults and patterns are those of the configuration classes of transformers 5.23; a test holds
every one of them against the class and against the caches that transformers makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kvparity.core.errors import UnsupportedError


@dataclass(frozen=True)
class Keys:
    """Typed access to a configuration, named ``where`` in errors."""

    data: Mapping[str, object]
    where: str

    def integer(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number that is not below ``least``."""
        value = self.data.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UnsupportedError(
                f"{self.where}: {name} must be a whole number from {least} on, found {value!r}"
            )
        return value


Types = Callable[[Keys, int], list[str]]
"""(keys, layers) -> the transformers name of every layer's type."""


@dataclass(frozen=True)
class Family:
    """One model type.

    ``types``: the layers' types where the configuration does not list them (None: it must).
    ``defaults``: what the class adds where a key is missing or null. ``derived_head_dim``: the
    class overwrites ``head_dim`` with ``hidden_size / num_attention_heads``. ``last_is_full``: the
    class makes the last layer one of full attention. ``changed``: keys that layers of one type have
    of their own.
    """

    types: Types | None
    defaults: Mapping[str, object] = field(default_factory=dict)
    derived_head_dim: bool = False
    last_is_full: bool = False
    changed: Callable[[Keys, str], Mapping[str, object]] | None = None


def _full(keys: Keys, layers: int) -> list[str]:
    return ["full_attention"] * layers


def _all_or_none(keys: Keys, layers: int) -> list[str]:
    """One window for every layer, where there is one."""
    windowed = keys.data.get("sliding_window") is not None
    return ["sliding_attention" if windowed else "full_attention"] * layers


def _switched(keys: Keys, layers: int) -> list[str]:
    """Qwen 2 and 3: a window behind a switch, from a layer on."""
    if not keys.data.get("use_sliding_window", False):
        return _full(keys, layers)
    first = keys.integer("max_window_layers", 28, least=0)
    return ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]


def _every(default: int, key: str | None = None, other: str = "sliding_attention") -> Types:
    """Full attention in every ``default``-th layer, or as often as ``key`` says."""

    def types(keys: Keys, layers: int) -> list[str]:
        period = default if key is None else keys.integer(key, default)
        return [other if (i + 1) % period else "full_attention" for i in range(layers)]

    return types


def _gemma4(keys: Keys, kind: str) -> Mapping[str, object]:
    """Layers of full attention have wider heads, and fewer where keys and values are one."""
    if kind != "full_attention" or keys.data.get("per_layer_config") is not None:
        return {}
    heads = keys.data.get("num_global_key_value_heads")
    own: dict[str, object] = {"head_dim": keys.integer("global_head_dim", 512)}
    if heads is not None and keys.data.get("attention_k_eq_v", False):
        own["num_key_value_heads"] = heads
    return own


def _sizes(heads: int, kv_heads: int, head_dim: int, hidden: int, **more: int) -> dict[str, int]:
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": hidden,
        **more,
    }


_PLAIN = Family(_full)
_NEXT = _every(4, "full_attention_interval", "linear_attention")

FAMILIES: Mapping[str, Family] = {
    "cohere": _PLAIN,
    "cohere2": Family(
        _every(4, "sliding_window_pattern"), {"sliding_window": 4096}, derived_head_dim=True
    ),
    "exaone4": Family(None, {"sliding_window": 4096}),
    "gemma": Family(_full, _sizes(16, 16, 256, 3072)),
    "gemma2": Family(_every(2), _sizes(8, 4, 256, 2304, sliding_window=4096)),
    "gemma3_text": Family(
        _every(6, "sliding_window_pattern"), _sizes(8, 4, 256, 2304, sliding_window=4096)
    ),
    "gemma3n_text": Family(
        _every(5), _sizes(8, 2, 256, 2048, sliding_window=512, num_kv_shared_layers=15)
    ),
    "gemma4_text": Family(
        _every(6),
        _sizes(8, 4, 256, 2304, sliding_window=512, num_kv_shared_layers=0),
        last_is_full=True,
        changed=_gemma4,
    ),
    "glm4": Family(_full, _sizes(32, 2, 128, 4096)),
    "gpt_oss": Family(_every(2), _sizes(64, 8, 64, 2880, sliding_window=128)),
    "granite": _PLAIN,
    "lfm2": Family(None),
    "llama": _PLAIN,
    "llama4_text": Family(None, {"attention_chunk_size": 8192}),
    "ministral": Family(_all_or_none),
    "ministral3": Family(_all_or_none),
    "mistral": Family(_all_or_none),
    "mixtral": Family(_all_or_none),
    "olmo2": _PLAIN,
    "olmo3": Family(_every(4), {"sliding_window": 4096}),
    "phi3": Family(_all_or_none),
    "qwen2": Family(_switched, {"sliding_window": 4096}),
    "qwen3": Family(_switched, {"sliding_window": 4096, "head_dim": 128}),
    "qwen3_5_text": Family(_NEXT, _sizes(16, 4, 256, 4096)),
    "qwen3_next": Family(_NEXT, _sizes(16, 2, 256, 2048)),
    "smollm3": Family(None),
    "starcoder2": Family(_all_or_none),
}

TEXT_MODEL = {"gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "gemma4": "gemma4_text"}
"""The text model of a composite one, where ``text_config`` does not name it."""

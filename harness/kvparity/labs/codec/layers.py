"""Which layers of a model store keys and values, how many heads, and for how long.

Read from the keys of a transformers configuration, with the rules by which transformers fills in
what a configuration leaves out, so that the ``config.json`` of a checkpoint is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kvparity.core.errors import UnsupportedError
from kvparity.labs.codec.families import FAMILIES, TEXT_MODEL, Family, Keys

Kind = Literal["full", "window", "shared", "state"]
_KINDS: Mapping[str, Kind] = {
    "full_attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
    "linear_attention": "state",
    "conv": "state",
}
# What an attention layer stores beside plain keys and values, or instead of them.
_OTHER_STORES = ("kv_lora_rank", "index_head_dim", "v_head_dim")


@dataclass(frozen=True)
class LayerKV:
    """What one layer of a model stores for its attention.

    ``kind``: ``full`` keeps all tokens; ``window`` the last ``window`` ones (those of a sliding
    window, or a chunk); ``shared`` keeps none and reads the cache of layer ``owner``, whose heads
    and window it has; ``state`` keeps a state that does not grow, and no keys. ``owner`` of any
    other layer is itself. ``window`` 0: no window.
    """

    kind: Kind
    owner: int
    kv_heads: int = 0
    head_dim: int = 0
    window: int = 0

    @property
    def stores(self) -> bool:
        """Whether it has keys and values of its own."""
        return self.kind in ("full", "window")

    def tokens(self, length: int) -> int:
        """How many tokens of a sequence of ``length`` it stores; a window stops growing."""
        if not self.stores:
            return 0
        return min(length, self.window) if self.window else length


def stored(plan: Sequence[LayerKV]) -> tuple[LayerKV, ...]:
    """The layers that store, in order: layer ``i`` of a ``CacheView`` is the ``i``-th of them."""
    return tuple(layer for layer in plan if layer.stores)


def layer_plan(config: object) -> tuple[LayerKV, ...]:
    """The plan of a transformers configuration: an object, or a mapping such as ``config.json``.

    A configuration of several models (vision and text) is read for its text model. Raises
    ``UnsupportedError`` for a ``model_type`` whose rules are not known, for a key that is missing
    and for layers that store something else than keys and values of one size.
    """
    data = _plain(config)
    family = FAMILIES.get(str(data.get("model_type")))
    if family is None:
        raise UnsupportedError(
            f"no layer plan is known for model_type {data.get('model_type')!r}; known are "
            f"{', '.join(sorted(FAMILIES))}"
        )
    where = f"the {data.get('model_type')} configuration"
    keys = Keys({**family.defaults, **data}, where)
    _refuse(keys)
    types = _types(keys, family)
    layers = [_own(keys, family, number, kind) for number, kind in enumerate(types)]
    return _share(keys, types, layers)


def _plain(config: object) -> Mapping[str, object]:
    """The keys of the text model."""
    if not isinstance(config, Mapping):
        if not hasattr(config, "get_text_config"):
            raise UnsupportedError(
                f"a {type(config).__name__} is no configuration; expected one of transformers, or "
                "a mapping with its keys"
            )
        found: Mapping[str, object] = config.get_text_config(decoder=True).to_dict()
        return found
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return config
    outer = str(config.get("model_type"))
    return {"model_type": TEXT_MODEL.get(outer, outer), **inner}


def _refuse(keys: Keys) -> None:
    for name in _OTHER_STORES:
        if keys.data.get(name) is not None:
            raise UnsupportedError(
                f"{keys.where} has {name}: its layers store something else than keys and values "
                "of one size, which no layer plan describes"
            )
    if keys.data.get("is_encoder_decoder") or keys.data.get("use_bidirectional_attention") in (
        True,
        "all",
    ):
        raise UnsupportedError(f"{keys.where} is of a model that does not decode token by token")


def _types(keys: Keys, family: Family) -> list[str]:
    """The transformers name of every layer's type."""
    layers = keys.integer("num_hidden_layers")
    types = keys.data.get("layer_types")
    if types is None:
        if family.types is None:
            raise UnsupportedError(
                f"{keys.where} has no layer_types; expected one for each of {layers} layers"
            )
        types = family.types(keys, layers)
    if not isinstance(types, (list, tuple)):
        raise UnsupportedError(f"{keys.where} has layer_types {types!r}; expected a list of names")
    if len(types) != layers:
        raise UnsupportedError(
            f"{keys.where} has {len(types)} layer_types for {layers} layers; expected one for each"
        )
    unknown = sorted(set(types) - set(_KINDS))
    if unknown:
        raise UnsupportedError(
            f"{keys.where} has layers of type {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(_KINDS)}"
        )
    return [*types[:-1], "full_attention"] if family.last_is_full else list(types)


def _own(keys: Keys, family: Family, number: int, kind: str) -> LayerKV:
    """The layer as if it shared with no other."""
    if _KINDS[kind] == "state":
        return LayerKV("state", number)
    changed = family.changed(keys, kind) if family.changed is not None else {}
    mine = Keys({**keys.data, **changed, **_per_layer(keys).get(number, {})}, keys.where)
    heads = mine.integer("num_attention_heads")
    head_dim = (
        mine.integer("hidden_size") // heads
        if family.derived_head_dim or mine.data.get("head_dim") is None
        else mine.integer("head_dim")
    )
    window = 0
    if _KINDS[kind] == "window":
        chunked = kind == "chunked_attention"
        window = mine.integer("attention_chunk_size" if chunked else "sliding_window")
    return LayerKV(
        _KINDS[kind],
        number,
        kv_heads=mine.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        window=window,
    )


def _per_layer(keys: Keys) -> dict[int, dict[str, object]]:
    """``per_layer_config`` of transformers 5: what single layers have of their own."""
    found = keys.data.get("per_layer_config") or {}
    if not isinstance(found, Mapping):
        raise UnsupportedError(f"{keys.where}: per_layer_config is no mapping by layer")
    return {int(layer): dict(own) for layer, own in found.items()}


def _share(keys: Keys, types: Sequence[str], layers: list[LayerKV]) -> tuple[LayerKV, ...]:
    """Let the last ``num_kv_shared_layers`` read the last cache of their own type before them."""
    count = keys.integer("num_kv_shared_layers", 0, least=0)
    first = len(layers) - count
    owners = {kind: number for number, kind in enumerate(types[: max(first, 0)])}
    for number in range(max(first, 0), len(layers)):
        if types[number] not in owners:
            raise UnsupportedError(
                f"{keys.where}: layer {number} shares the cache of a layer of type "
                f"{types[number]}, but none comes before the {count} that share"
            )
        owner = layers[owners[types[number]]]
        layers[number] = LayerKV(
            "shared", owner.owner, owner.kv_heads, owner.head_dim, owner.window
        )
    return tuple(layers)

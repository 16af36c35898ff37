"""What a configuration of transformers says of a model before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kvparity_contracts.presets import KnownModel


def known(keys: Mapping[str, object]) -> KnownModel:
    """What the keys that a contract or a ``config.json`` states tell of the model."""
    return KnownModel(
        None if stretches(keys) else _number(keys, "max_position_embeddings"),
        _number(keys, "vocab_size"),
        sliding_window=_number(keys, "sliding_window"),
    )


def stretches(keys: Mapping[str, object]) -> bool:
    """Whether rotary angles follow the length of the sequence (dynamic NTK).

    ``max_position_embeddings`` is then where that begins, and no limit.
    """
    return any(
        part.get("rope_type", part.get("type")) == "dynamic"
        for name in ("rope_parameters", "rope_scaling")
        for part in _parts(keys.get(name))
    )


def _parts(value: object) -> Iterator[Mapping[str, object]]:
    """The dictionary itself, and those for single types of layer inside it."""
    if isinstance(value, Mapping):
        yield value
        yield from (inner for inner in value.values() if isinstance(inner, Mapping))


def _number(keys: Mapping[str, object], name: str) -> int | None:
    value = keys.get(name)
    return value if type(value) is int else None

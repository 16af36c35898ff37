"""The settings that a layer of a transformers model passes to its attention function by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsFloat

from torch import Tensor

from kvparity.core.errors import UnsupportedError


@dataclass(frozen=True)
class AttentionSettings:
    """``window`` in keys (0: all), ``softcap`` (0: none), ``sinks`` float32 ``[q_heads]``."""

    scale: float
    window: int
    softcap: float
    sinks: Tensor | None


def read(head_dim: int, scaling: object, more: Mapping[str, object]) -> AttentionSettings:
    """The settings of one call; without ``scaling`` a score is divided by the root of ``head_dim``.

    Raises:
        UnsupportedError: one of them is no number, or the sinks are no tensor.
    """
    sinks = more.get("s_aux")
    if sinks is not None and not isinstance(sinks, Tensor):
        raise UnsupportedError(f"s_aux of attention is a {type(sinks).__name__}, not a tensor")
    return AttentionSettings(
        scale=head_dim**-0.5 if scaling is None else _number("scaling", scaling),
        window=int(_number("sliding_window", more.get("sliding_window") or 0)),
        softcap=_number("softcap", more.get("softcap") or 0.0),
        sinks=None if sinks is None else sinks.detach().float().reshape(-1).contiguous(),
    )


def _number(name: str, value: object) -> float:
    if not isinstance(value, SupportsFloat):
        raise UnsupportedError(f"{name} of attention is a {type(value).__name__}, not a number")
    return float(value)

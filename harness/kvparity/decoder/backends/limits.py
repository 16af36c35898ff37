"""What a backend cannot do, in words."""

from __future__ import annotations

from torch import Tensor

from kvparity.subject import UnsupportedError
from kvparity_kernels.keys import KeysValues


def require_plain(
    name: str, kv: KeysValues, *, softcap: float = 0.0, sinks: Tensor | None = None
) -> None:
    """Raise ``UnsupportedError`` for a call that only this project's kernels can compute."""
    if kv.format is not None:
        raise UnsupportedError(no_codes(name, str(kv.format)))
    if softcap:
        raise UnsupportedError(no_softcap(name))
    if sinks is not None:
        raise UnsupportedError(no_sinks(name))


def no_codes(name: str, format: str) -> str:
    """For a cache of codes."""
    return (
        f"attention {name} reads plain numbers, but the cache stores {format}; store float32, "
        "float16 or bfloat16, or use attention: fixed-order"
    )


def no_softcap(name: str) -> str:
    """For scores that are capped."""
    return f"attention {name} has no soft cap of scores; use attention: fixed-order"


def no_sinks(name: str) -> str:
    """For a learned logit in the denominator."""
    return f"attention {name} has no attention sinks; use attention: fixed-order"

"""How a session stores keys and values: format, layout, rings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kvparity.core.errors import UnsupportedError
from kvparity_kernels.store import StoreFormat


@dataclass(frozen=True)
class Storage:
    """What the caches of a decoder are like, beside what a ``Layout`` says.

    ``heads_first``: all slots of one head together (``[kv_heads, slots, width]``), else all heads
    of one slot. ``ring``: a layer with a window keeps window + chunk - 1 positions of a sequence;
    else it keeps them all.
    """

    format: StoreFormat
    heads_first: bool = False
    ring: bool = False


def store_format(value: str | torch.dtype | StoreFormat) -> StoreFormat:
    """A format from its text or its dtype; ``UnsupportedError`` names those that exist."""
    if isinstance(value, StoreFormat):
        return value
    try:
        return StoreFormat.parse(str(value).removeprefix("torch."))
    except ValueError as error:
        raise UnsupportedError(str(error)) from error


def ring_size(window: int, chunk: int) -> int:
    """Slots of a ring: the oldest query of a chunk sees window - 1 keys before its own, and the
    chunk's newest key must not lie on one of them.

    Raises ``UnsupportedError`` where nobody said how long a chunk is.
    """
    if chunk < 1:
        raise UnsupportedError(
            f"a ring for a window of {window} needs {window} + chunk - 1 slots, but the layout "
            "does not say how many tokens a step adds at most (chunk is 0); give the chunk, or "
            "use no ring"
        )
    return window + chunk - 1

"""What a subject tells a listener while it computes: keys written, rows attended.

Nothing is recorded unless somebody listens. A subject calls :func:`wrote` where it hands fresh keys
and values to its cache (before any rounding) and :func:`attended` where attention has run, from
what the kernel was really given, never from what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Wrote:
    """Fresh keys and values of one span: ``k``, ``v`` ``[n, kv_heads, head_dim]``.

    ``layer`` counts the layers that store; ``start`` is the first position.
    """

    layer: int
    sequence: int
    start: int
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Attended:
    """One row of one layer: a query and what its kernel was given to look at.

    ``layer`` counts the layers of the model. ``position`` is the row's place in its sequence,
    ``told`` the position that the model was told (None: it is told none). ``length``: keys of the
    sequence in the cache, this row's included. ``first``: the position of ``k[0]``; ``q``
    ``[q_heads, head_dim]``; ``k``, ``v`` ``[n, kv_heads, head_dim]``: the keys from ``first`` on
    that the row sees, read from where the kernel reads them. ``out`` ``[q_heads, head_dim]`` is
    what came back, ``lse`` float32 ``[q_heads]`` its log-sum-exp (None: not returned).
    ``sinks`` float32 ``[q_heads]``. ``decode``: the single-query kernel computed it.
    """

    layer: int
    sequence: int
    position: int
    told: int | None
    length: int
    first: int
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    lse: Tensor | None
    scale: float
    softcap: float = 0.0
    sinks: Tensor | None = None
    decode: bool = False


class Listener(Protocol):
    """Who is told."""

    def wrote(self, event: Wrote) -> None:
        """Keys and values were written."""
        ...

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        """The positions of a span whose rows to report; gathering them costs time."""
        ...

    def attended(self, event: Attended) -> None:
        """A row was attended."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` what happens inside."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current() -> Listener | None:
    """Who listens, or None."""
    return _listener.get()

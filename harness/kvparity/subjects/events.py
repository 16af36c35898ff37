"""What a subject reports while it computes: keys written, rows attended, what ran.

Events are frozen values in one stream (``kvparity_kernels.stream``), which has launches, too.
Nothing is recorded unless somebody listens. A subject reports keys and values where it hands them
fresh to its cache (before any rounding), and rows where attention has run, from what the kernel was
really given, never from what was asked for. A new kind of event is a class here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kvparity_kernels import stream
from kvparity_kernels.stream import Launched, emit


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
    ``sinks`` float32 ``[q_heads]``; ``bias`` float64 ``[q_heads, n]``, added to scores after scale
    and softcap (None: none). ``decode``: the single-query kernel computed it.
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
    bias: Tensor | None = None
    decode: bool = False


BACKEND = "backend."
"""What the names of attention backends begin with, where they are counted."""
TORCH = "operations.torch"
"""What each of torch's operations beside a decoder's attention counts as."""


@dataclass(frozen=True)
class Ran:
    """Something ran that launches no kernel of this project: a backend, an operation of torch."""

    name: str


Places = Sequence[Sequence[tuple[str, int] | None]]
"""By row of a batch and column: the sequence's id and the position, None for padding."""


@dataclass(frozen=True)
class Computed:
    """What one operation of a forward call gave for each token: ``rows`` ``[B, T, ...]``.

    It is a view: what a listener writes there is what the model goes on with. ``operation``: the
    module's own name, with ``attention``, ``keys`` or ``input`` behind it where it is not the
    module's result. ``read``: rows are not new, they were read from the cache.
    """

    operation: str
    rows: Tensor
    places: Places
    read: bool = False


@dataclass(frozen=True)
class Communicated:
    """A collective ran on this rank: its operator (``allgather_``), ranks of its group, and what
    this rank put in: its format and bytes."""

    operator: str
    ranks: int
    dtype: str
    bytes: int


@dataclass(frozen=True)
class RowsOffered:
    """Rows of a span could be reported. Who wants some calls ``want`` with their positions."""

    sequence: int
    positions: Sequence[int]
    want: Callable[[Iterable[int]], None]


class Listener(Protocol):
    """A listener to keys and rows."""

    def wrote(self, event: Wrote) -> None:
        """Keys and values were written."""
        ...

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        """The positions of a span whose rows to report; gathering them costs time."""
        ...

    def attended(self, event: Attended) -> None:
        """A row was attended; where several listen, one that any of them wants."""
        ...


class _Stream:
    """All who listen to keys and rows, as one listener."""

    def wrote(self, event: Wrote) -> None:
        emit(event)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        wanted: list[int] = []
        emit(RowsOffered(sequence, positions, wanted.extend))
        return tuple(dict.fromkeys(wanted))

    def attended(self, event: Attended) -> None:
        emit(event)


_STREAM = _Stream()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Report to ``listener`` what is written and attended inside."""

    def offered(event: RowsOffered) -> None:
        event.want(listener.wants(event.sequence, event.positions))

    with (
        stream.listening(Wrote, listener.wrote),
        stream.listening(RowsOffered, offered),
        stream.listening(Attended, listener.attended),
    ):
        yield


def current() -> Listener | None:
    """All who listen to keys or rows, or None where nobody does."""
    return _STREAM if stream.heard(Wrote) or stream.heard(RowsOffered) else None


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count by name what runs inside: launches of this project's kernels, and ``Ran``."""
    counts: Counter[str] = Counter()

    def ran(event: Launched | Ran) -> None:
        counts[event.name] += 1

    with stream.listening(Launched, ran), stream.listening(Ran, ran):
        yield counts

"""The sequences of one call as a user of SDPA would hand them over: rectangles of rows and keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from kvparity.subjects.decoder.read_back import slots_of
from kvparity_kernels.keys import KeysValues

Seen = Literal["all", "square", "lower-right", "mask"]


@dataclass(frozen=True)
class Piece:
    """``batch`` sequences with as many rows and as many keys as each other: one SDPA call.

    ``at``: their rows in q, a slice or int64 ``[batch * rows]``. ``keys`` of each are handed over.
    Where they lie in one piece of the cache, or in pieces equally far apart, ``view`` is (slot of
    the first, slots between two sequences) and nothing is copied; else ``slots`` int64
    ``[batch * keys]`` gathers them. ``seen``: a row sees ``all`` keys, those up to its own in a
    ``square``, the same aligned at the end (``lower-right``), or what ``mask`` says: bool
    ``[rows, keys]`` or ``[batch, 1, rows, keys]``, True where it does.
    """

    batch: int
    rows: int
    keys: int
    at: slice | Tensor
    view: tuple[int, int] | None
    slots: Tensor | None
    seen: Seen
    mask: Tensor | None = None


def pieces(
    kv: KeysValues,
    starts: Sequence[int],
    rows: Sequence[int],
    *,
    window: int = 0,
    first_key: Tensor | None = None,
) -> tuple[Piece, ...]:
    """How the sequences of a call are handed over; sequence b owns rows ``starts[b]`` and the next.

    Keys that no row of a sequence sees because of ``window`` are not handed over. Raises
    ``ValueError`` where a row would see no key.
    """
    lengths = kv.kv_lens.tolist()
    alike: dict[tuple[int, int], list[int]] = {}
    for b, size in enumerate(zip(rows, lengths, strict=True)):
        if not 0 < size[0] <= size[1]:
            raise ValueError(
                f"sequence {b} of the call has {size[0]} rows and {size[1]} keys; SDPA needs at "
                "least one row, and no more rows than keys"
            )
        alike.setdefault(size, []).append(b)
    begins = None if kv.starts is None else kv.starts.tolist()
    return tuple(
        _piece(kv, members, [starts[b] for b in members], size, begins, window, first_key)
        for size, members in alike.items()
    )


def _piece(
    kv: KeysValues,
    members: Sequence[int],
    starts: Sequence[int],
    size: tuple[int, int],
    begins: Sequence[int] | None,
    window: int,
    first_key: Tensor | None,
) -> Piece:
    rows, length = size
    device = kv.k.device
    first = max(0, length - rows - window + 1) if window else 0
    keys, view, slots = length - first, None, None
    if begins is not None and not kv.ring:
        view = _regular([begins[b] + first for b in members])
    if view is None:
        slots = slots_of(kv, members, torch.arange(first, length, device=device)).flatten()
    at = _rows(starts, rows, device)
    piece = partial(Piece, len(members), rows, keys, at, view, slots)
    if first_key is not None:
        place = torch.arange(first, length, device=device)
        own = first_key[at].view(len(members), rows, 1)
        mask = _mask(rows, keys, length, window, device) & (place >= own)
        return piece("mask", mask[:, None])
    if rows == 1:
        return piece("all")
    if window and window < length:
        return piece("mask", _mask(rows, keys, length, window, device))
    return piece("square" if rows == keys else "lower-right")


def _regular(begins: Sequence[int]) -> tuple[int, int] | None:
    """(first, distance) of numbers that are equally far apart, ascending; None if they are not."""
    if len(begins) == 1:
        return begins[0], 0
    step = begins[1] - begins[0]
    if step > 0 and all(b == begins[0] + i * step for i, b in enumerate(begins)):
        return begins[0], step
    return None


def _rows(starts: Sequence[int], rows: int, device: torch.device) -> slice | Tensor:
    if all(start == starts[0] + i * rows for i, start in enumerate(starts)):
        return slice(starts[0], starts[0] + len(starts) * rows)
    first = torch.tensor(starts, dtype=torch.int64).to(device)
    return (first[:, None] + torch.arange(rows, device=device)).flatten()


def _mask(rows: int, keys: int, length: int, window: int, device: torch.device) -> Tensor:
    """Bool ``[rows, keys]``: the last ``keys`` of ``length`` keys, rows aligned at the end."""
    key = torch.arange(length - keys, length, device=device)[None, :]
    last = torch.arange(length - rows, length, device=device)[:, None]
    mask = key <= last
    return mask & (key > last - window) if window else mask


def handed(kv: KeysValues, piece: Piece, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Keys and values of a piece, ``[batch, heads, keys, head_dim]`` in ``dtype``."""
    found = []
    for x in (kv.k, kv.v):
        if piece.view is not None:
            begin, step = piece.view
            s, h, d = x.stride()
            offset = x.storage_offset() + begin * s
            shape = (piece.batch, piece.keys, *x.shape[1:])
            y = x.as_strided(shape, (step * s, s, h, d), offset)
        else:
            assert piece.slots is not None  # a piece has a view or slots
            y = x.index_select(0, piece.slots).view(piece.batch, piece.keys, *x.shape[1:])
        found.append(y.to(dtype).transpose(1, 2))
    return found[0], found[1]

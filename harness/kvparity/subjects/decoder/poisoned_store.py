"""The codes of one layer's keys or values, between bands of poison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity_kernels.store import StoreFormat, decode, encode, poisoned

GUARD = 64  # slots of poison before the first and behind the last slot


@dataclass(frozen=True)
class SlotContents:
    """Stored positions as they are: codes ``[n, heads, width]``, scales where they are stored."""

    codes: Tensor
    scales: Tensor | None


Lay = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Codes ``[slots, heads, width]`` -> a view of them elsewhere, and every byte that was written."""


class Stored:
    """Slots of one layer, keys or values.

    ``codes`` ``[slots, kv_heads, width]`` and ``scales`` float32 ``[slots, kv_heads, groups]``
    (None where the format stores none) are views into storage with ``GUARD`` slots of poison at
    both ends, in either order of slots and heads. ``static`` float32 ``[kv_heads]``: the scales of
    an fp8 format. Everything starts as poison: it reads as NaN. ``lay`` places the codes elsewhere
    in memory, with one slot of poison at both ends.
    """

    def __init__(
        self,
        slots: int,
        kv_heads: int,
        head_dim: int,
        format: StoreFormat,
        *,
        heads_first: bool,
        static: Tensor | None,
        device: torch.device,
        lay: Lay | None = None,
    ) -> None:
        self.format, self.head_dim = format, head_dim
        self.static = static if format.static else None
        guard = GUARD if lay is None else 1
        total = slots + 2 * guard

        def laid(whole: Tensor) -> Tensor:
            whole = whole.transpose(0, 1).contiguous().transpose(0, 1) if heads_first else whole
            return whole[guard : guard + slots]

        codes, scales = poisoned(total, kv_heads, head_dim, format, device)
        self._touched: Tensor | None = None
        if lay is None:
            self.codes = laid(codes)
        else:
            spread, self._touched = lay(codes)
            self.codes = spread[guard : guard + slots]
        self.scales = None if scales is None else laid(scales)
        nothing, none = poisoned(1, kv_heads, head_dim, format, device)
        self._nothing = SlotContents(nothing, none)

    @property
    def scale(self) -> Tensor | None:
        """What ``KeysValues`` takes as scale: static ones or the stored ones."""
        return self.static if self.scales is None else self.scales

    def encode(self, x: Tensor) -> SlotContents:
        """The codes of fresh ``x[n, kv_heads, head_dim]``."""
        return SlotContents(*encode(x, self.format, self.static))

    def decode(self, held: SlotContents, dtype: torch.dtype) -> Tensor:
        """What a reader gets: in ``dtype``, or where no codes are stored, in the stored dtype."""
        if not (self.format.static or self.format.dynamic):
            return held.codes
        scale = self.static if held.scales is None else held.scales
        return decode(held.codes, scale, self.format, dtype)

    def get(self, slots: Tensor) -> SlotContents:
        """Copies of what lies in ``slots[n]``."""
        codes = _bytes(self.codes).index_select(0, slots).view(self.codes.dtype)
        return SlotContents(
            codes, None if self.scales is None else self.scales.index_select(0, slots)
        )

    def put(self, slots: Tensor, held: SlotContents) -> None:
        """Overwrite ``slots[n]``."""
        _bytes(self.codes).index_copy_(0, slots, _bytes(held.codes))
        if self.scales is not None:
            assert held.scales is not None
            self.scales.index_copy_(0, slots, held.scales)

    def poison(self, slots: Tensor | None = None) -> None:
        """Make ``slots`` (None: all) read as NaN."""
        if slots is None:
            slots = torch.arange(len(self.codes), device=self.codes.device)
        count, nothing = len(slots), self._nothing
        codes = _bytes(nothing.codes).expand(count, -1, -1)
        scales = None if nothing.scales is None else nothing.scales.expand(count, -1, -1)
        self.put(slots, SlotContents(codes, scales))

    def memory(self) -> Tensor:
        """Every byte of the codes and of the bands around them, a view."""
        if self._touched is not None:
            return self._touched
        return torch.empty(0, dtype=torch.uint8, device=self.codes.device).set_(
            self.codes.untyped_storage()
        )

    def bytes(self) -> int:
        """Bytes of all slots, without the bands."""
        parts = [self.codes] if self.scales is None else [self.codes, self.scales]
        return sum(part.numel() * part.element_size() for part in parts)


def _bytes(codes: Tensor) -> Tensor:
    """Codes of one byte as integers: not every device indexes fp8."""
    return codes.view(torch.uint8) if codes.element_size() == 1 else codes

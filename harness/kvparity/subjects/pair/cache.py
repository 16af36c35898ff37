"""The cache that a pair of attention kernels reads: one layer, the harness's own.

Sequences lie in a rectangle, or in pages, shuffled, of which two sequences may share some. Slots
that hold nothing read as NaN: bands before the first and behind the last slot, the slack behind
each sequence (in pages, what is left of its last one, and pages of nobody), and what was forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Member
from kvparity.subjects.attention_calls import StoredKV
from kvparity.subjects.decoder.placement import Paged, Region
from kvparity.subjects.decoder.poisoned_store import SlotContents, Stored

FIRST = -1
"""The sequence before the members, which holds nothing."""


@dataclass(frozen=True)
class KVStores:
    """How keys and values lie in memory: formats, and which of slots and heads come first.

    ``latent``: ``v`` is ``k``, of which values are so many columns (0: they have their own).
    """

    k: Stored
    v: Stored
    latent: int = 0

    @property
    def coded(self) -> bool:
        """Codes are stored, not numbers."""
        return self.k.format.static or self.k.format.dynamic

    def given(self, k: SlotContents, v: SlotContents) -> StoredKV:
        """What a call is given, for codes and scales of any shape."""
        if self.latent:
            return StoredKV(k.codes, k.codes[..., : self.latent])
        if not self.coded:
            return StoredKV(k.codes, v.codes)
        dynamic = self.k.format.dynamic
        return StoredKV(
            k.codes,
            v.codes,
            k.scales if dynamic else self.k.static,
            v.scales if dynamic else self.v.static,
        )


Spare = Callable[[int, int], Stored]
"""(slots, width of a head) -> fresh poisoned slots of the same kind."""


class PairCache:
    """Keys and values of some members: ``kvparity.subjects.base.LayeredCache`` with one layer."""

    def __init__(
        self,
        members: Sequence[Member],
        region: Region,
        kind: KVStores,
        twin: KVStores,
        *,
        window: int,
        execution: torch.dtype,
        lead: int,
    ) -> None:
        """``kind`` and ``twin`` hold the slots of ``region``, all poison.

        No kernel is given the twin, so it shows what the harness wrote and nobody else. ``lead``:
        so many sequences that never hold anything lie before the members, and as many behind.
        """
        self.members, self.region, self.kind = tuple(members), region, kind
        self.lead = lead
        self.capacity = region.placement.slots // max(len(members) + 2 * lead, 1)
        self.twin = twin
        self.width, self.execution = window, execution
        self.filled = [0] * len(members)

    @property
    def page(self) -> int:
        """Slots of a page, 0 where sequences lie in a rectangle."""
        placement = self.region.placement
        return placement.page if isinstance(placement, Paged) else 0

    def place(self, sequence: int, start: int, stop: int) -> Sequence[int]:
        """The slots of the positions ``start .. stop-1``; a range where they follow each other."""
        own = self.lead + sequence
        if self.page:
            return [self.region.slot(own, position) for position in range(start, stop)]
        first = self.region.slot(own, 0)
        return range(first + start, first + stop)

    def address(self, layer: int, sequence: int, position: int) -> tuple[int, int]:
        """The slot of a key, and the slots of a page, as :class:`~kvparity.subjects.base.Addressed`
        has them."""
        return self.place(sequence, position, position + 1)[0], self.page

    def slots(self, sequence: int, start: int, stop: int) -> Tensor:
        """The same on the device."""
        return _on(self.kind.k, [self.place(sequence, start, stop)])

    def rectangles(self, sequences: Sequence[int], spare: Spare) -> tuple[StoredKV, StoredKV]:
        """Caches of some sequences, and of the twin; ``FIRST`` and ``len(members)`` hold nothing.

        ``[B, capacity, ...]``: views if the sequences are neighbours.
        """
        rows = [self.lead + each for each in sequences]
        return self._both(lambda each: rectangle(each, rows, self.capacity, spare))

    def pages(self) -> tuple[StoredKV, StoredKV]:
        """The whole cache and its twin as views ``[pages, page, ...]``."""

        def cut(x: Tensor) -> Tensor:
            return x.view(-1, self.page, *x.shape[1:])

        def whole(stored: Stored) -> SlotContents:
            scales = stored.scales
            return SlotContents(cut(stored.codes), None if scales is None else cut(scales))

        return self._both(whole)

    def block_table(self, sequences: Sequence[int]) -> Tensor:
        """int32 ``[B, max_pages]``: the pages of some sequences, numbered as in ``rectangles``."""
        own = [self.lead + each for each in sequences]
        table = self.region.address(own, self.kind.k.codes.device).block_table
        assert table is not None  # there are pages
        return table

    def packed(self, lengths: Sequence[tuple[int, int]], spare: Spare) -> tuple[StoredKV, StoredKV]:
        """The first tokens of some (sequence, length), one after the other, and of the twin."""
        parts = [self.place(sequence, 0, length) for sequence, length in lengths]
        return self._both(lambda each: packed(each, parts, spare))

    def _both(self, taken: Callable[[Stored], SlotContents]) -> tuple[StoredKV, StoredKV]:
        """Of the cache and of its twin."""
        own, twin = (each.given(taken(each.k), taken(each.v)) for each in (self.kind, self.twin))
        return own, twin

    def written(self) -> StoredKV:
        """Where a writer finds the slots: ``[slots, ...]``, or ``[pages, page, ...]``."""
        if self.page:
            return self.pages()[0]
        return StoredKV(self.kind.k.codes, self.kind.v.codes)

    def expect(self, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Keys and values that somebody else writes: only the twin is written."""
        self._put((self.twin,), sequence, start, k, v)

    def _put(self, to: Sequence[KVStores], sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        where = self.slots(sequence, start, start + len(k))
        v = k if self.kind.latent else v
        for part, x in (("k", k), ("v", v)):
            held = getattr(self.kind, part).encode(x)
            for stores in to:
                getattr(stores, part).put(where, held)
        self.filled[sequence] = max(self.filled[sequence], start + len(k))

    def intact(self) -> bool:
        """Whether all memory, bands and unused slots included, is as the harness wrote it."""
        mine, other = self.kind, self.twin
        pairs = ((mine.k, other.k), (mine.v, other.v))
        return all(torch.equal(a.memory(), b.memory()) for a, b in pairs)

    # kvparity.subjects.base.LayeredCache

    def layers(self) -> int:
        """One."""
        return 1

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values, decoded where codes are stored."""
        where = self.slots(sequence, start, stop)
        k, v = self.kind.k, self.kind.v
        keys = k.decode(k.get(where), self.execution)
        if self.kind.latent:
            return keys, keys[..., : self.kind.latent].clone()
        return keys, v.decode(v.get(where), self.execution)

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Encode and store keys and values from position ``start`` on; of latent ones the keys."""
        self._put((self.kind, self.twin), sequence, start, k, v)

    def live(self, layer: int, sequence: int) -> range:
        """All positions so far: the cache of a pair is no ring."""
        return range(self.filled[sequence])

    def window(self, layer: int) -> int | None:
        """How many keys a row sees."""
        return self.width or None

    def owner(self, model_layer: int) -> int:
        """The one layer."""
        return 0

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What a reader gets of fresh keys and values."""
        of_k, of_v = self.kind.k, self.kind.v
        return (
            of_k.decode(of_k.encode(k), self.execution),
            of_v.decode(of_v.encode(v), self.execution),
        )

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions from ``length`` on.

        Raises ``SubjectError`` for positions that lie in pages of another sequence.
        """
        shared = self.region.shared[self.lead + sequence]
        if length < shared:
            raise SubjectError(
                f"{self.members[sequence].id} cannot be cut to {length} positions: the first "
                f"{shared} lie in pages of another sequence"
            )
        self._poison(self.slots(sequence, length, max(self.filled[sequence], length)))
        self.filled[sequence] = min(self.filled[sequence], length)

    # kvparity.subjects.base.Reusable

    def reset(self) -> None:
        """Forget everything."""
        self._poison(None)
        self.region.reset()
        self.filled = [0] * len(self.filled)

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Share the pages that a donor's first ``tokens`` tokens fill, and copy the others."""
        shared = self.region.share_pages(self.lead + sequence, self.lead + donor, tokens)
        to, of = self.slots(sequence, shared, tokens), self.slots(donor, shared, tokens)
        for stored in (self.kind.k, self.kind.v, self.twin.k, self.twin.v):
            stored.put(to, stored.get(of))
        self.filled[sequence] = tokens

    def _poison(self, slots: Tensor | None) -> None:
        for stored in (self.kind.k, self.kind.v, self.twin.k, self.twin.v):
            stored.poison(slots)


def rectangle(
    stored: Stored, sequences: Sequence[int], capacity: int, spare: Spare
) -> SlotContents:
    """The caches of some sequences, ``[B, capacity, ...]``: a view if they are neighbours."""
    first, count = sequences[0], len(sequences)
    if list(sequences) == list(range(first, first + count)):
        found = _view(stored, range(first * capacity, len(stored.codes)))
    else:
        parts = [range(each * capacity, (each + 1) * capacity) for each in sequences]
        found = _copy(stored, parts, spare)
    scales = None if found.scales is None else _unflatten(found.scales, count, capacity)
    return SlotContents(_unflatten(found.codes, count, capacity), scales)


def packed(stored: Stored, parts: Sequence[Sequence[int]], spare: Spare) -> SlotContents:
    """The slots of ``parts`` one after the other: a view of the only one, if it is a range."""
    first, *more = parts
    if isinstance(first, range) and not more:
        return _view(stored, first)
    return _copy(stored, parts, spare)


def _view(stored: Stored, part: range) -> SlotContents:
    scales = None if stored.scales is None else stored.scales[part.start : part.stop]
    return SlotContents(stored.codes[part.start : part.stop], scales)


def _copy(stored: Stored, parts: Sequence[Sequence[int]], spare: Spare) -> SlotContents:
    copied = spare(sum(map(len, parts)), stored.head_dim)
    copied.put(_on(stored, [range(len(copied.codes))]), stored.get(_on(stored, parts)))
    return SlotContents(copied.codes, copied.scales)


def _on(stored: Stored, parts: Sequence[Sequence[int]]) -> Tensor:
    slots = [slot for part in parts for slot in part]
    return torch.tensor(slots, dtype=torch.int64, device=stored.codes.device)


def _unflatten(x: Tensor, batch: int, capacity: int) -> Tensor:
    """``[batch * capacity, heads, ...]`` as ``[batch, capacity, heads, ...]``, a view."""
    over = x.stride(0) * capacity
    return x.as_strided((batch, capacity, *x.shape[1:]), (over, *x.stride()), x.storage_offset())

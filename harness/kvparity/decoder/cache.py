"""The KV cache of a session: where each key lies, and the stored numbers.

Everything starts as NaN. What the session never writes (slack, pads, spare pages) stays NaN, so a
kernel that reads it shows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.decoder.config import DecoderConfig
from kvparity.schedule import Layout, Member
from kvparity.subject import SubjectError
from kvparity_kernels.keys import KeysValues

SPARE_PAGES = 3  # pages that belong to nobody; the unused ends of block tables point at one


@dataclass(frozen=True)
class Contiguous:
    """One run of slots per sequence, from ``starts[sequence]`` on; ``slots`` in the whole cache."""

    slots: int
    starts: tuple[int, ...]
    page: int = 0

    def slot(self, sequence: int, index: int) -> int:
        """The slot of one key."""
        return self.starts[sequence] + index

    def addresses(self, sequences: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """``starts`` int64 ``[B]`` and no block table, on the CPU."""
        return torch.tensor([self.starts[s] for s in sequences], dtype=torch.int64), None


@dataclass(frozen=True)
class Paged:
    """Pages of ``page`` slots anywhere in the cache, listed by ``tables[sequence]``."""

    slots: int
    tables: tuple[tuple[int, ...], ...]
    page: int

    def slot(self, sequence: int, index: int) -> int:
        """The slot of one key."""
        return self.tables[sequence][index // self.page] * self.page + index % self.page

    def addresses(self, sequences: Sequence[int]) -> tuple[Tensor | None, Tensor | None]:
        """No starts and the ``block_table`` int32 ``[B, pages]``, on the CPU."""
        return None, torch.tensor([self.tables[s] for s in sequences], dtype=torch.int32)


Placement = Contiguous | Paged


def place(members: Sequence[Member], layout: Layout, seed: int) -> Placement:
    """Lay the members out.

    Packed: end to end, ``slack`` slots behind each. Padded: a rectangle of the longest member plus
    ``slack``, pads before (left) or after (right) the keys. Paged: pages shuffled by ``seed``.
    """
    lengths = [member.length for member in members]
    longest = max(lengths)
    if layout.page:
        return _paged(lengths, layout, seed)
    if layout.batch == "packed":
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length + layout.slack)
        return Contiguous(starts[-1], tuple(starts[:-1]))
    width = longest + layout.slack
    pads = [longest - n if layout.batch == "left" else 0 for n in lengths]
    return Contiguous(width * len(lengths), tuple(i * width + p for i, p in enumerate(pads)))


def _paged(lengths: Sequence[int], layout: Layout, seed: int) -> Paged:
    counts = [-(-(n + layout.slack) // layout.page) for n in lengths]
    total = sum(counts) + SPARE_PAGES
    pages = list(range(total))
    random.Random(seed).shuffle(pages)
    spare = pages[-1]
    tables, taken = [], 0
    for count in counts:
        own = pages[taken : taken + count]
        tables.append(tuple(own + [spare] * (max(counts) - count)))
        taken += count
    return Paged(total * layout.page, tuple(tables), layout.page)


@dataclass(frozen=True)
class Visible:
    """Which keys the spans of one attention call see, on the device."""

    kv_lens: Tensor
    starts: Tensor | None
    block_table: Tensor | None


class KVCache:
    """Keys and values ``[slots, kv_heads, head_dim]`` per layer, in the cache dtype.

    Satisfies ``kvparity.subject.CacheView``.
    """

    def __init__(
        self,
        config: DecoderConfig,
        members: Sequence[Member],
        layout: Layout,
        *,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        self.members = tuple(members)
        self.placement = place(members, layout, seed)
        self.device = device
        shape = (self.placement.slots, config.kv_heads, config.head_dim)

        def poison() -> Tensor:
            return torch.full(shape, float("nan"), dtype=dtype, device=device)

        self.k = [poison() for _ in range(config.layers)]
        self.v = [poison() for _ in range(config.layers)]

    def layers(self) -> int:
        """The number of layers."""
        return len(self.k)

    def slots(self, sequence: int, start: int, stop: int) -> list[int]:
        """The slots of the keys ``start .. stop-1``."""
        member = self.members[sequence]
        if not 0 <= start <= stop <= member.length:
            raise SubjectError(
                f"{member.id} has {member.length} cache slots, asked for {start}..{stop}"
            )
        return [self.placement.slot(sequence, index) for index in range(start, stop)]

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values ``[stop-start, kv_heads, head_dim]`` as they are stored."""
        slots = self._on_device(self.slots(sequence, start, stop))
        return self.k[layer][slots], self.v[layer][slots]

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Overwrite stored keys and values from position ``start`` on."""
        self.store(layer, self._on_device(self.slots(sequence, start, start + len(k))), k, v)

    def store(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Round ``k``, ``v`` ``[n, kv_heads, head_dim]`` to the cache dtype, into ``slots[n]``."""
        self.k[layer].index_copy_(0, slots, k.to(self.k[layer].dtype))
        self.v[layer].index_copy_(0, slots, v.to(self.v[layer].dtype))

    def visible(self, sequences: Sequence[int], kv_lens: Sequence[int]) -> Visible:
        """The first ``kv_lens[b]`` keys of ``sequences[b]``, for every layer of a step."""
        starts, table = self.placement.addresses(sequences)
        return Visible(
            kv_lens=torch.tensor(kv_lens, dtype=torch.int32).to(self.device),
            starts=None if starts is None else starts.to(self.device),
            block_table=None if table is None else table.to(self.device),
        )

    def keys_values(self, layer: int, seen: Visible) -> KeysValues:
        """What an attention kernel reads."""
        return KeysValues(
            k=self.k[layer],
            v=self.v[layer],
            kv_lens=seen.kv_lens,
            starts=seen.starts,
            block_table=seen.block_table,
            page=self.placement.page,
        )

    def _on_device(self, slots: list[int]) -> Tensor:
        return torch.tensor(slots, dtype=torch.int64).to(self.device)

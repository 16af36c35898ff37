"""The KV cache of a session: where each key lies, and the stored numbers.

Everything starts as poison that reads as NaN. What the session never writes (slack, pads, spare
pages, bands around each layer) stays so, and a kernel that reads it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import layers_of, stored_windows
from kvparity.subjects.decoder.placement import Address, Region
from kvparity.subjects.decoder.poisoned_store import SlotContents, Stored
from kvparity.subjects.decoder.storage import Storage, ring_size
from kvparity_kernels.keys import KeysValues

Scales = tuple[tuple[Tensor | None, Tensor | None], ...]
"""Static scales of keys and values, float32 ``[kv_heads]``, of each layer that writes."""


@dataclass(frozen=True)
class Visible:
    """Which keys the spans of one attention call see, on the device; an address per region."""

    kv_lens: Tensor
    addresses: tuple[Address, ...]


class KVCache:
    """Keys and values of the layers that write, in the declared format.

    Satisfies ``LayeredCache`` of the seam. ``dtype``: the execution dtype, in which codes are
    read. Raises ``UnsupportedError`` for a ring in a layout that does not say its chunk.
    """

    def __init__(
        self,
        config: DecoderShape,
        members: Sequence[Member],
        layout: Layout,
        storage: Storage,
        *,
        scales: Scales | None = None,
        dtype: torch.dtype,
        device: torch.device,
        seed: int,
    ) -> None:
        self.members, self.layout = tuple(members), layout
        self.dtype, self.device = dtype, device
        self.windows = stored_windows(config)
        self.owners = tuple(layer.stored for layer in layers_of(config))
        self.filled = [0] * len(self.members)
        lengths = [member.length for member in members]
        self.regions = [Region(lengths, layout, seed)]
        if storage.ring and config.sliding_window:
            ring = ring_size(config.sliding_window, layout.chunk)
            self.regions.append(
                Region(lengths, layout, seed, window=config.sliding_window, ring=ring)
            )
        self.region_of = tuple(
            1 if window and len(self.regions) > 1 else 0 for window in self.windows
        )

        def stored(layer: int, which: int) -> Stored:
            return Stored(
                self.regions[self.region_of[layer]].placement.slots,
                config.kv_heads,
                config.head_dim,
                storage.format,
                heads_first=storage.heads_first,
                static=None if scales is None else scales[layer][which],
                device=device,
            )

        self.k = [stored(layer, 0) for layer in range(len(self.windows))]
        self.v = [stored(layer, 1) for layer in range(len(self.windows))]

    # What a step needs

    def slots(self, sequence: int, start: int, stop: int, region: int = 0) -> list[int]:
        """The slots of the keys ``start .. stop-1``."""
        member = self.members[sequence]
        if not 0 <= start <= stop <= member.length:
            raise SubjectError(
                f"{member.id} has {member.length} cache slots, asked for {start}..{stop}"
            )
        where = self.regions[region]
        return [where.slot(sequence, position) for position in range(start, stop)]

    def fresh_slots(self, step: Step) -> tuple[Tensor, ...]:
        """Where the tokens of a step go, int64 ``[tokens]`` for each region, in span order."""
        for span in step:
            if len(self.regions) > 1 and span.stop - span.start > self.layout.chunk:
                raise SubjectError(
                    f"a step adds {span.stop - span.start} tokens to "
                    f"{self.members[span.sequence].id}, but its rings were made for chunks of "
                    f"{self.layout.chunk}"
                )
        return tuple(
            self._on_device(
                [x for s in step for x in self.slots(s.sequence, s.start, s.stop, region)]
            )
            for region in range(len(self.regions))
        )

    def store(self, layer: int, slots: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        """Encode ``k``, ``v`` ``[n, kv_heads, head_dim]`` into the layer's ``slots[region][n]``."""
        where = slots[self.region_of[layer]]
        self.k[layer].put(where, self.k[layer].encode(k))
        self.v[layer].put(where, self.v[layer].encode(v))

    def advance(self, step: Step) -> None:
        """The step is computed: its positions are held."""
        for span in step:
            self.filled[span.sequence] = span.stop
            for region in self.regions:
                region.filled_to(span.sequence, span.stop)

    def visible(self, sequences: Sequence[int], kv_lens: Sequence[int]) -> Visible:
        """The first ``kv_lens[b]`` keys of ``sequences[b]``, for every layer of a step."""
        return Visible(
            kv_lens=torch.tensor(kv_lens, dtype=torch.int32).to(self.device),
            addresses=tuple(region.address(sequences, self.device) for region in self.regions),
        )

    def keys_values(self, layer: int, seen: Visible) -> KeysValues:
        """What an attention kernel reads of a stored layer."""
        address = seen.addresses[self.region_of[layer]]
        return described(self.k[layer], self.v[layer], seen.kv_lens, address)

    # kvparity.subjects.base.LayeredCache

    def layers(self) -> int:
        """The number of layers that store keys and values."""
        return len(self.k)

    def window(self, layer: int) -> int | None:
        """How many keys a query of this layer sees, its own included; None: all."""
        return self.windows[layer] or None

    def owner(self, model_layer: int) -> int:
        """The stored layer that a layer of the model reads."""
        return self.owners[model_layer]

    def live(self, layer: int, sequence: int) -> range:
        """The positions that the layer holds now."""
        oldest = self.regions[self.region_of[layer]].oldest[sequence]
        return range(min(oldest, self.filled[sequence]), self.filled[sequence])

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values ``[stop-start, kv_heads, head_dim]``.

        As they are stored, or where codes are stored as a reader gets them, in the execution dtype.
        """
        k, v = self.held(layer, sequence, start, stop)
        return self.k[layer].decode(k, self.dtype), self.v[layer].decode(v, self.dtype)

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Overwrite stored keys and values from position ``start`` on, as a writer would."""
        held = (self.k[layer].encode(k), self.v[layer].encode(v))
        self.put_back(layer, sequence, start, held)

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What a reader gets of fresh ``k``, ``v``, as ``read`` would give it."""
        mine, others = self.k[layer], self.v[layer]
        return (
            mine.decode(mine.encode(k), self.dtype),
            others.decode(others.encode(v), self.dtype),
        )

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions from ``length`` on, so that they can be computed again.

        Raises ``SubjectError`` where a ring has overwritten what they would see, or where they lie
        in pages of a donor.
        """
        name, filled = self.members[sequence].id, self.filled[sequence]
        if not 0 <= length <= filled:
            raise SubjectError(f"{name} holds {filled} positions; it cannot be cut to {length}")
        for region in self.regions:
            if region.oldest[sequence] > region.needed_at(length):
                raise SubjectError(
                    f"{name} cannot be cut to {length} positions: its rings hold those from "
                    f"{region.oldest[sequence]} on, and the next query sees "
                    f"{region.needed_at(length)}"
                )
            if length < region.shared[sequence]:
                raise SubjectError(
                    f"{name} cannot be cut to {length} positions: the first "
                    f"{region.shared[sequence]} lie in pages of another sequence"
                )
        for layer in range(self.layers()):
            where = self._slots_of(layer, sequence, length, filled)
            self.k[layer].poison(where)
            self.v[layer].poison(where)
        self.filled[sequence] = length

    # More than the seam asks for

    def held(
        self, layer: int, sequence: int, start: int, stop: int
    ) -> tuple[SlotContents, SlotContents]:
        """The codes and scales of positions, to be put back with their bits."""
        where = self._slots_of(layer, sequence, start, stop)
        return self.k[layer].get(where), self.v[layer].get(where)

    def put_back(
        self, layer: int, sequence: int, start: int, held: tuple[SlotContents, SlotContents]
    ) -> None:
        """Overwrite codes and scales from position ``start`` on."""
        k, v = held
        where = self._slots_of(layer, sequence, start, start + len(k.codes))
        self.k[layer].put(where, k)
        self.v[layer].put(where, v)

    def reset(self) -> None:
        """Forget all sequences; what the cache held is poison."""
        for stored in (*self.k, *self.v):
            stored.poison()
        for region in self.regions:
            region.reset()
        self.filled = [0] * len(self.members)

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Fill an empty sequence with the donor's first ``tokens`` tokens.

        With pages the whole ones are shared and the rest is copied; without, all are copied. A
        ring is always copied, since it will be written again. Raises ``SubjectError`` where the
        sequence is not empty or the donor does not hold what the next query would see.
        """
        mine, theirs = self.members[sequence].id, self.members[donor].id
        if self.filled[sequence] or not 0 < tokens <= min(
            self.filled[donor], self.members[sequence].length
        ):
            raise SubjectError(
                f"{mine} ({self.members[sequence].length} slots, {self.filled[sequence]} filled) "
                f"cannot adopt {tokens} tokens of {theirs}, which holds {self.filled[donor]}"
            )
        firsts = []
        for region in self.regions:
            oldest, needed = region.oldest[donor], region.needed_at(tokens)
            if oldest > needed:
                raise SubjectError(
                    f"{mine} cannot adopt {tokens} tokens of {theirs}: its rings hold the "
                    f"positions from {oldest} on, and the next query sees {needed}"
                )
            # In a ring of the same size nothing older than its size has a slot of its own.
            first = max(oldest, tokens - region.ring) if region.ring else 0
            region.oldest[sequence] = first
            firsts.append(first or region.share_pages(sequence, donor, tokens))
        for layer in range(self.layers()):
            first = firsts[self.region_of[layer]]
            held = self.held(layer, donor, first, tokens)
            self.put_back(layer, sequence, first, held)
        self.filled[sequence] = tokens

    def address(self, layer: int, sequence: int, position: int) -> tuple[int, int]:
        """The slot of a key, and the slots of a page, as :class:`~kvparity.subjects.base.Addressed`
        has them."""
        region = self.region_of[layer]
        return self.slots(sequence, position, position + 1, region)[0], self.layout.page

    def bytes(self) -> int:
        """Bytes of all slots, without the bands of poison."""
        return sum(stored.bytes() for stored in (*self.k, *self.v))

    def _slots_of(self, layer: int, sequence: int, start: int, stop: int) -> Tensor:
        return self._on_device(self.slots(sequence, start, stop, self.region_of[layer]))

    def _on_device(self, slots: list[int]) -> Tensor:
        return torch.tensor(slots, dtype=torch.int64).to(self.device)


def described(k: Stored, v: Stored, kv_lens: Tensor, address: Address) -> KeysValues:
    """Stored keys and values as the kernels take them."""
    coded = k.format.static or k.format.dynamic
    return KeysValues(
        k=k.codes,
        v=v.codes,
        kv_lens=kv_lens,
        starts=address.starts,
        block_table=address.block_table,
        page=address.page,
        format=k.format if coded else None,
        k_scale=k.scale if coded else None,
        v_scale=v.scale if coded else None,
        ring=address.ring,
    )

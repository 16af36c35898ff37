"""Where the keys of each sequence lie: runs of slots, pages, rings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout

SPARE_PAGES = 3  # pages that belong to nobody; the unused ends of block tables point at one


@dataclass(frozen=True)
class Address:
    """Where a kernel finds the keys of some sequences, on the device: as in ``KeysValues``."""

    starts: Tensor | None
    block_table: Tensor | None
    page: int = 0
    ring: int = 0


@dataclass(frozen=True)
class Contiguous:
    """One run of slots per sequence, from ``starts[sequence]`` on; ``slots`` in the whole cache."""

    slots: int
    starts: tuple[int, ...]

    def slot(self, sequence: int, index: int) -> int:
        """The slot of one key."""
        return self.starts[sequence] + index

    def address(self, sequences: Sequence[int], device: torch.device) -> Address:
        """``starts`` int64 ``[B]`` and no block table."""
        starts = torch.tensor([self.starts[s] for s in sequences], dtype=torch.int64)
        return Address(starts.to(device), None)


@dataclass(frozen=True)
class Paged:
    """Pages of ``page`` slots anywhere in the cache, listed by ``tables[sequence]``."""

    slots: int
    tables: tuple[tuple[int, ...], ...]
    page: int

    def slot(self, sequence: int, index: int) -> int:
        """The slot of one key."""
        return self.tables[sequence][index // self.page] * self.page + index % self.page

    def address(self, sequences: Sequence[int], device: torch.device) -> Address:
        """No starts and the ``block_table`` int32 ``[B, pages]``."""
        table = torch.tensor([self.tables[s] for s in sequences], dtype=torch.int32)
        return Address(None, table.to(device), self.page)

    def sharing(self, sequence: int, donor: int, pages: int) -> Paged:
        """The same, with the donor's first ``pages`` pages in the table of ``sequence``."""
        tables = list(self.tables)
        tables[sequence] = tables[donor][:pages] + tables[sequence][pages:]
        return Paged(self.slots, tuple(tables), self.page)


Placement = Contiguous | Paged


def place(lengths: Sequence[int], layout: Layout, seed: int) -> Placement:
    """Lay out sequences that need so many slots each.

    Packed: end to end, ``slack`` slots behind each. Padded: a rectangle of the longest one plus
    ``slack``, pads before (left) or after (right) the keys. Paged: pages shuffled by ``seed``, none
    of a sequence right behind the one before it.
    """
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
    *taken, spare = _anywhere(total, counts, seed)
    tables = []
    for count in counts:
        own, taken = taken[:count], taken[count:]
        tables.append(tuple(own + [spare] * (max(counts) - count)))
    return Paged(total * layout.page, tuple(tables), layout.page)


def _anywhere(total: int, counts: Sequence[int], seed: int) -> list[int]:
    """All pages, shuffled; the first ``counts[0]`` are those of one sequence, and so on.

    A kernel that takes a page to lie right behind the one before it must not be right by chance.
    """
    pages, shuffled = list(range(total)), random.Random(seed)
    ends = {sum(counts[: i + 1]) for i in range(len(counts))}
    while True:
        shuffled.shuffle(pages)
        behind = {i for i in range(1, sum(counts)) if pages[i] == pages[i - 1] + 1}
        if behind <= ends:
            return pages


class Region:
    """The slots of all layers that keep the same positions, and which positions those are.

    ``ring`` 0: every position has a slot of its own, else position p lies in slot ``p % ring``.
    ``oldest[sequence]``: older positions are overwritten.
    """

    def __init__(
        self, lengths: Sequence[int], layout: Layout, seed: int, *, window: int = 0, ring: int = 0
    ) -> None:
        self.ring, self.window = ring, window
        needed = [ring] * len(lengths) if ring else lengths
        self._needed, self._layout, self._seed = needed, layout, seed
        self.placement = place(needed, layout, seed)
        self.oldest = [0] * len(lengths)
        self.shared = [0] * len(lengths)  # positions of a sequence that lie in a donor's pages

    def slot(self, sequence: int, position: int) -> int:
        """The slot of one position."""
        return self.placement.slot(sequence, position % self.ring if self.ring else position)

    def address(self, sequences: Sequence[int], device: torch.device) -> Address:
        """What a kernel is given."""
        return replace(self.placement.address(sequences, device), ring=self.ring)

    def filled_to(self, sequence: int, length: int) -> None:
        """Positions up to ``length`` are written: a ring has lost the oldest."""
        if self.ring:
            self.oldest[sequence] = max(self.oldest[sequence], length - self.ring)

    def needed_at(self, length: int) -> int:
        """The oldest position that the query at position ``length`` may see."""
        return max(0, length + 1 - self.window) if self.ring else 0

    def share_pages(self, sequence: int, donor: int, tokens: int) -> int:
        """Put the donor's whole pages below ``tokens`` into the table of ``sequence``.

        Returns how many positions that gives; 0 without pages, and for a ring, whose pages will be
        written again.
        """
        if self.ring or not isinstance(self.placement, Paged):
            return 0
        pages = tokens // self.placement.page
        self.placement = self.placement.sharing(sequence, donor, pages)
        self.shared[sequence] = pages * self.placement.page
        return self.shared[sequence]

    def reset(self) -> None:
        """Everything is as before the first use, but for pages: they are others than before."""
        self._seed += 1
        self.placement = place(self._needed, self._layout, self._seed)
        self.oldest = [0] * len(self.oldest)
        self.shared = [0] * len(self.shared)

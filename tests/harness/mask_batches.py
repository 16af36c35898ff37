"""Batches as plain lists of real columns and pads, and the masks that they have."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from kvparity.subjects.hf import mask as masks


@dataclass(frozen=True)
class Batch:
    """``rows``: ``#`` a real column, ``.`` a pad; the last ``queries`` of them are computed now.

    The cache has ``keys`` slots and has dropped the first ``begin`` columns. Real queries see the
    last ``window`` keys, those from the last multiple of ``chunk`` on, or all.
    """

    rows: tuple[str, ...]
    queries: int
    keys: int
    begin: int = 0
    window: int = 0
    chunk: int = 0
    said: bool = True  # whether the pads are said by an attention mask

    @property
    def first(self) -> int:
        return len(self.rows[0]) - self.queries - self.begin

    def position(self, row: int, column: int) -> int:
        return self.rows[row][:column].count("#")

    def real(self, row: int, slot: int) -> bool:
        column = self.begin + slot
        return column < len(self.rows[row]) and self.rows[row][column] == "#"

    def oldest(self, position: int) -> int:
        if self.chunk:
            return position // self.chunk * self.chunk
        return max(0, position - self.window + 1) if self.window else 0

    def mask(self) -> torch.Tensor:
        shape = len(self.rows), 1, self.queries, self.keys
        flags = torch.zeros(shape, dtype=torch.bool)
        for row, query, slot in product(*(range(shape[i]) for i in (0, 2, 3))):
            own = self.position(row, self.begin + self.first + query)
            seen = self.oldest(own) <= self.position(row, self.begin + slot) <= own
            flags[row, 0, query, slot] = (
                seen and self.real(row, slot) and slot <= self.first + query
            )
        return flags

    def read(self, flags: torch.Tensor) -> masks.Visible:
        count = range(len(self.rows))
        real = [[self.real(row, slot) for slot in range(self.keys)] for row in count]
        gone = [self.position(row, self.begin) for row in count]
        if not self.said:
            return masks.read(flags, self.first, None, torch.tensor(gone) if self.begin else None)
        return masks.read(flags, self.first, torch.tensor(real), torch.tensor(gone))


BATCHES = {
    "one row": Batch(("#####",), 5, 5),
    "one row, nothing said": Batch(("#####",), 5, 5, said=False),
    "a decoding step": Batch(("####", "####"), 1, 4),
    "a decoding step of one, room for more": Batch(("###",), 1, 6, said=False),
    "a chunk, room for more": Batch(("#####",), 3, 8),
    "pads before": Batch((".####", "#####", "...##"), 5, 5),
    "pads behind": Batch(("####.", "#####", "##..."), 5, 5),
    "pads between": Batch(("##..##", "####.#"), 1, 6),
    "pads between, a chunk": Batch(("##..##", ".###.#"), 2, 7),
    "pads alone": Batch((".....", "..###"), 3, 5),
    "a window": Batch(("######",), 6, 6, window=3),
    "a window of one": Batch(("####", ".###"), 4, 4, window=1),
    "a window that drops": Batch(("########",), 2, 4, begin=4, window=3),
    "a window that drops, nothing said": Batch(("########",), 1, 3, begin=5, window=3, said=False),
    "a window that rolls": Batch(("########",), 1, 3, begin=5, window=3),
    "a window that drops pads": Batch((".#######", "...#####"), 1, 4, begin=4, window=3),
    "a window that dropped pads alone": Batch(("..#####", "..#####"), 3, 5, begin=2, window=4),
    "a window that dropped pads of one": Batch(("..######", ".#######"), 2, 6, begin=2, window=3),
    "a window of one that drops": Batch(("##", "##"), 1, 1, begin=1, window=1),
    "the first token": Batch(("#", "#"), 1, 1),
    "the second token": Batch(("##", ".#"), 1, 2),
    "chunks": Batch(("########", "..######"), 4, 8, chunk=3),
    "chunks, a step": Batch(("######",), 1, 6, chunk=3),
}  # fmt: skip

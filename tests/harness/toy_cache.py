"""Where the toy keeps its keys and values; one kind can be used again, and shared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kvparity.plan.schedule import Member

VOCAB, WIDTH, POSITIONS = 256, 8, 512


class ToyCache:
    """Float32 keys and values ``[members, capacity, 1, WIDTH]``; unused slots hold NaN."""

    def __init__(self, members: Sequence[Member], slack: int) -> None:
        capacity = max(m.length for m in members) + slack
        self.k = torch.full((len(members), capacity, 1, WIDTH), torch.nan)
        self.v = self.k.clone()

    def layers(self) -> int:
        return 1

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.k[sequence, start:stop].clone(), self.v[sequence, start:stop].clone()

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        self.k[sequence, start : start + len(k)] = k
        self.v[sequence, start : start + len(v)] = v


class ReusableToyCache(ToyCache):
    """The same, for a session that is used again."""

    def __init__(
        self,
        members: Sequence[Member],
        slack: int,
        defects: frozenset[str],
        window: int | None = None,
    ) -> None:
        super().__init__(members, slack)
        self.defects, self.width = defects, window
        self.rows = list(range(len(members)))
        self.frozen = torch.zeros(self.k.shape[:2], dtype=torch.bool)

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return super().read(layer, self.rows[sequence], start, stop)

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        row = self.rows[sequence]
        if "casts" in self.defects:
            k = k.bfloat16().float()
        free = ~self.frozen[row, start : start + len(k)]
        self.k[row, start : start + len(k)][free] = k[free]
        self.v[row, start : start + len(v)][free] = v[free]

    def live(self, layer: int, sequence: int) -> range:
        filled = int((~torch.isnan(self.k[self.rows[sequence], :, 0, 0])).sum())
        if self.width is None:
            return range(filled)
        # Two more than the window shows, as a ring may have; or one fewer than the next row sees.
        spare = -2 if "loses-first" in self.defects else 2
        return range(max(0, filled - self.width - spare), filled)

    def window(self, layer: int) -> int | None:
        return self.width

    def owner(self, model_layer: int) -> int:
        return 0

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def truncate(self, sequence: int, length: int) -> None:
        self.k[self.rows[sequence], length:] = torch.nan
        self.v[self.rows[sequence], length:] = torch.nan

    def reset(self) -> None:
        if "keeps-old" in self.defects:
            self.frozen = ~torch.isnan(self.k[:, :, 0, 0])
            return
        self.k.fill_(torch.nan)
        self.v.fill_(torch.nan)

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        if "shares-slots" in self.defects:
            self.rows[sequence] = self.rows[donor]
            return
        k, v = self.read(0, donor, 0, tokens)
        if "adopts-short" in self.defects:
            k[-1], v[-1] = k[0], v[0]
        self.write(0, sequence, 0, k, v)

"""The reduction order as a contract states it: how keys are cut into splits and tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from kvparity_contracts.base import Fault, Model


class Order(Model):
    """Keys are cut at absolute multiples of `split` and walked in whole tiles of `tile` keys."""

    split: Annotated[int, Field(ge=16)] = 256
    """Keys per split: a power of two and a multiple of tile."""
    tile: Annotated[int, Field(ge=16)] = 64
    """Keys per tile: a power of two, at least 16."""
    block_m: Annotated[int, Field(ge=16)] = 64
    """Query rows per program: a power of two, shared by prefill and decode."""
    num_warps: Literal[1, 2, 4, 8, 16] = 4
    """Warps per program, shared by prefill and decode."""

    def own_faults(self) -> Iterator[Fault]:
        """What contradicts itself."""
        for name in ("split", "tile", "block_m"):
            value: int = getattr(self, name)
            if value & (value - 1):
                near = 1 << (value.bit_length() - 1)
                yield Fault((name,), f"found {value}", "a power of two", str(near))
        if self.split % self.tile:
            yield Fault(("split",), f"found {self.split}", f"a multiple of tile ({self.tile})")

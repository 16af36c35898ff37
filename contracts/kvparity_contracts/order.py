"""The reduction order as a contract states it: how keys are cut into splits and tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from kvparity_contracts.base import Fault, Model


class DecodeTiles(Model):
    """Rows and warps of decode's programs, where they are not those of prefill's."""

    block_m: Annotated[int, Field(ge=16)]
    """Query rows per program of decode: a power of two."""
    num_warps: Literal[1, 2, 4, 8, 16]
    """Warps per program of decode."""

    def own_faults(self) -> Iterator[Fault]:
        """What no kernel has."""
        yield from uneven(self, "block_m")


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
        yield from uneven(self, "split", "tile", "block_m")
        if self.split % self.tile:
            yield Fault(("split",), f"found {self.split}", f"a multiple of tile ({self.tile})")


def uneven(model: Model, *names: str) -> Iterator[Fault]:
    """Fault numbers that are no power of two."""
    for name in names:
        value: int = getattr(model, name)
        if value & (value - 1):
            near = 1 << (value.bit_length() - 1)
            yield Fault((name,), f"found {value}", "a power of two", str(near))

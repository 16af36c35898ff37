"""Every way of computing a case, as functions without arguments over fresh random data.

``ours`` is this project's kernel as it is used; a way whose name begins so is a variant of it.
The others compute the same numbers in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvparity.labs.bench.cases import ModelShape
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, Tiles, using

Call = Callable[[], Tensor]
Calls = dict[str, Call]
OURS = "ours"
ORDER = ReductionOrder()


@dataclass(frozen=True)
class TileChoice:
    """The tiles of ours, and others of the same bits that are timed beside them, by name."""

    tiles: Tiles = BASE
    beside: Mapping[str, Tiles] = field(default_factory=dict)


PLAIN = TileChoice()


def is_ours(name: str) -> bool:
    """Whether a way is this project's kernel or a variant of it."""
    return name == OURS or name.startswith(f"{OURS} ")


def drawn(shape: ModelShape, device: str, *sizes: int) -> Tensor:
    """Random numbers of the shape's format."""
    return torch.randn(*sizes, device=device).to(getattr(torch, shape.dtype))


def tiled(call: Call, tiles: Tiles) -> Call:
    """``call`` under these tiles."""

    def under() -> Tensor:
        with using(tiles):
            return call()

    return under


def with_tiles(call: Call, choice: TileChoice, matters: Callable[[Tiles], object]) -> Calls:
    """``ours``, and ``ours [name]`` for the tiles beside that change what ``matters``."""
    others = {
        f"{OURS} [{name}]": tiled(call, tiles)
        for name, tiles in choice.beside.items()
        if matters(tiles) != matters(choice.tiles)
    }
    return {OURS: tiled(call, choice.tiles), **others}

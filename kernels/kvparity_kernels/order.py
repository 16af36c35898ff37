"""The reduction order as a value: everything that decides in which order numbers are added."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class ReductionOrder:
    """How keys and the K dimension of linear layers are cut and walked. Counts, no units.

    ``split`` keys form one split (cut at absolute multiples), walked in tiles of ``tile`` keys.
    ``block_m`` rows (tokens times query heads per key head) and ``num_warps`` do not appear in the
    mathematics, but on a GPU they choose the matrix instruction and the warp layout and with them
    the order inside a tile; prefill and decode share them. ``linear_k`` is the K step of linear.
    Raises ``ValueError`` for an order that no kernel can run.
    """

    split: int = 256
    tile: int = 64
    block_m: int = 64
    num_warps: int = 4
    linear_k: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1 or value & (value - 1):
                raise ValueError(
                    f"ReductionOrder.{field.name} is {value!r}; it must be a power of two, "
                    f"such as {field.default}"
                )
        for name in ("tile", "block_m", "linear_k"):
            if getattr(self, name) < 16:
                raise ValueError(
                    f"ReductionOrder.{name} is {getattr(self, name)}; "
                    "a tensor core takes no fewer than 16"
                )
        if self.split % self.tile:
            raise ValueError(
                f"ReductionOrder.split is {self.split}, not a multiple of tile {self.tile}; "
                f"use split={self.tile} or a larger power of two"
            )
        if self.num_warps > 16:
            raise ValueError(f"ReductionOrder.num_warps is {self.num_warps}; at most 16")

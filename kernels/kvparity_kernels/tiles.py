"""How work that is not reduced is cut: free in the mathematics, and on a GPU by measurement alone.

A tile's size chooses the matrix instruction and the warp layout, and with them the order in which
a GPU adds inside a tile. So the base takes all of it from the reduction order, and another choice
is in force only where a device was seen to give the same bits (``rules``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

from kvparity_kernels.order import ReductionOrder

LINEAR_BLOCK_N = 64  # of the base
LINEAR_STAGES = 3
_SMALLEST = 16  # what a tensor core takes


@dataclass(frozen=True)
class LinearTile:
    """Rows, columns and depth of one tile of a linear layer, its warps and pipeline stages.

    ``block_k`` is a multiple of the order's ``linear_k``: the chain along K stays ascending.
    Raises ``ValueError`` for a tile that no kernel can run.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "block_k"):
            _check_block(f"LinearTile.{name}", getattr(self, name))
        _check_warps("LinearTile.num_warps", self.num_warps)
        if type(self.num_stages) is not int or not 1 <= self.num_stages <= 8:
            raise ValueError(f"LinearTile.num_stages is {self.num_stages!r}; it must be 1 to 8")

    def __str__(self) -> str:
        """As in ``16x32x128/4w4s``."""
        sizes = f"{self.block_m}x{self.block_n}x{self.block_k}"
        return f"{sizes}/{self.num_warps}w{self.num_stages}s"


@dataclass(frozen=True)
class Tiles:
    """What may differ from the base, which is all defaults.

    ``prefill_block_m``, ``decode_block_m``, ``prefill_warps``, ``decode_warps``: rows and warps of
    a program of attention (None: the order's). ``skip_hidden``: tiles of keys that no row of the
    program sees are not walked. ``linear``: (at most so many rows, tile), ascending; 0 rows, which
    may stand last, is without end; beyond the last of them the base's tile is taken.
    Raises ``ValueError`` for what no kernel can run.
    """

    prefill_block_m: int | None = None
    prefill_warps: int | None = None
    decode_block_m: int | None = None
    decode_warps: int | None = None
    skip_hidden: bool = False
    linear: tuple[tuple[int, LinearTile], ...] = ()

    def __post_init__(self) -> None:
        for side in ("prefill", "decode"):
            if (rows := getattr(self, f"{side}_block_m")) is not None:
                _check_block(f"Tiles.{side}_block_m", rows)
            if (warps := getattr(self, f"{side}_warps")) is not None:
                _check_warps(f"Tiles.{side}_warps", warps)
        if type(self.skip_hidden) is not bool:
            raise ValueError(f"Tiles.skip_hidden is {self.skip_hidden!r}; it must be true or false")
        limits = [rows for rows, _ in self.linear]
        ends = limits[:-1] if limits and limits[-1] == 0 else limits
        if any(type(rows) is not int for rows in limits) or ends != sorted(
            {rows for rows in ends if rows > 0}
        ):
            raise ValueError(
                f"Tiles.linear is for at most {limits} rows; expected ascending numbers, the last "
                "of which may be 0 (without end)"
            )

    def linear_tile(self, rows: int, order: ReductionOrder) -> LinearTile:
        """The tile for so many rows. Raises ``ValueError`` if ``linear_k`` does not divide it."""
        for most, tile in self.linear:
            if most == 0 or rows <= most:
                if tile.block_k % order.linear_k:
                    raise ValueError(
                        f"linear tile {tile} walks K in steps of {tile.block_k}, which is no "
                        f"multiple of the order's linear_k {order.linear_k}; use another tile"
                    )
                return tile
        return LinearTile(
            order.block_m, LINEAR_BLOCK_N, order.linear_k, order.num_warps, LINEAR_STAGES
        )


BASE = Tiles()
given: ContextVar[Tiles | None] = ContextVar("kvparity_tiles", default=None)


@contextmanager
def using(tiles: Tiles) -> Iterator[None]:
    """Put ``tiles`` in force in this context, whatever the device: for probes, tests, benches."""
    token = given.set(tiles)
    try:
        yield
    finally:
        given.reset(token)


def merged(choices: Iterable[Tiles]) -> Tiles:
    """All choices at once; where two of them disagree, the first is taken.

    Of linear tiles, those with the same number of rows disagree.
    """
    found = BASE
    linear: dict[int, LinearTile] = {}
    for each in choices:
        for field in fields(Tiles):
            if field.name == "linear":
                for rows, tile in each.linear:
                    linear.setdefault(rows, tile)
            elif getattr(found, field.name) == field.default:
                found = replace(found, **{field.name: getattr(each, field.name)})
    return replace(found, linear=tuple(sorted(linear.items(), key=lambda e: (e[0] == 0, e[0]))))


def candidates() -> dict[str, Tiles]:
    """Every choice that is worth measuring, by name; of two for the same purpose the better first.

    Better is a guess from shapes and compiled code. Those for few rows read weights in wide rows
    with more loads in flight; those for many use each weight more often.
    """
    found = {
        # One warp for 16 rows, as four have 64: each then walks all keys of a tile by itself.
        "decode_block_m=16,warps=1": Tiles(decode_block_m=16, decode_warps=1),
        "decode_block_m=16": Tiles(decode_block_m=16),
        "decode_block_m=32,warps=2": Tiles(decode_block_m=32, decode_warps=2),
        "decode_block_m=32": Tiles(decode_block_m=32),
        "prefill_block_m=128,warps=8": Tiles(prefill_block_m=128, prefill_warps=8),
        "skip_hidden": Tiles(skip_hidden=True),
    }
    for rows, tile in (
        (16, LinearTile(16, 32, 128, 4, 4)),
        (16, LinearTile(16, 32, 256, 4, 3)),
        (16, LinearTile(16, 64, 128, 4, 4)),
        (64, LinearTile(64, 32, 128, 4, 4)),
        (64, LinearTile(64, 64, 128, 4, 4)),
        (0, LinearTile(128, 128, 64, 8, 3)),
        (0, LinearTile(128, 256, 64, 8, 3)),
    ):
        found[f"linear {tile}"] = Tiles(linear=((rows, tile),))
    return found


def _check_block(name: str, value: object) -> None:
    if type(value) is not int or value < _SMALLEST or value & (value - 1):
        raise ValueError(
            f"{name} is {value!r}; it must be a power of two and at least {_SMALLEST}, such as 64"
        )


def _check_warps(name: str, value: object) -> None:
    if type(value) is not int or value not in (1, 2, 4, 8, 16):
        raise ValueError(f"{name} is {value!r}; it must be 1, 2, 4, 8 or 16")

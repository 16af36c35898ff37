"""What tiles are measured on: lengths around every edge, and numbers that make order visible."""

from __future__ import annotations

from dataclasses import dataclass

_EDGES = (1, 2, 63, 64, 65, 127, 129, 255, 256, 257, 300, 511, 513, 700)
_ROWS = (1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 300)


@dataclass(frozen=True)
class AttentionCase:
    """Sequences in one batch. ``keys``: of each; ``rows``: so many of its last are computed.

    ``first``: whether rows have a first key of their own; ``store``: a format, empty is the
    format of the queries; ``page``: slots of a page, 0 for contiguous keys.
    """

    name: str
    heads: int
    kv_heads: int
    dim: int
    keys: tuple[int, ...] = _EDGES
    rows: int = 700
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    first: bool = False
    page: int = 0
    store: str = ""


@dataclass(frozen=True)
class LinearCase:
    """A layer ``[columns, depth]`` over batches of ``rows``. ``wide``: its result is float32.

    Rounded to fewer bits, another order of so few numbers may not show.
    """

    name: str
    columns: int
    depth: int
    rows: tuple[int, ...] = _ROWS
    bias: bool = False
    wide: bool = False


TileCase = AttentionCase | LinearCase

FULL: tuple[TileCase, ...] = (
    AttentionCase("plain", 8, 2, 64),
    AttentionCase("wide heads", 16, 2, 128),
    AttentionCase("rules", 8, 2, 64, window=100, softcap=20.0, sinks=True, first=True),
    AttentionCase("int8 in pages", 8, 2, 128, store="int8(32)", page=16),
    AttentionCase("fp8, a window, no groups", 4, 4, 64, store="fp8_e4m3(head)", window=70),
    LinearCase("odd", 129, 333, bias=True),
    LinearCase("even", 256, 1024, wide=True),
)
"""For a device: what rows of the table rest on."""

SHORT: tuple[TileCase, ...] = (
    AttentionCase("plain", 8, 2, 64, (1, 65, 257, 600), 80),
    AttentionCase("wide heads", 16, 2, 128, (1, 65, 257, 600), 80, window=100, softcap=20.0),
    LinearCase("odd", 129, 333, (1, 16, 17, 64, 65, 129), bias=True, wide=True),
)
"""For a device: whether rows that are in force hold here."""

TINY: tuple[TileCase, ...] = (
    AttentionCase("plain", 2, 1, 16, (1, 66, 257), 3),
    AttentionCase("rules", 2, 1, 16, (70, 170), 3, window=90, softcap=20.0, sinks=True, first=True),
    LinearCase("odd", 65, 35, (1, 17, 65), bias=True, wide=True),
)
"""For the interpreter, which shows the algorithm alone and takes milliseconds for each tile."""

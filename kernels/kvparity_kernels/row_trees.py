"""In which order a device adds a row of attention's weights, where its compiled code was read.

Each thread adds its own columns, then lanes, then warps that share the row exchange their sums.
Every layout that the compiler chose puts column c where the bits of c say, so a tree is the bits of
a column's number in the order in which columns that differ in one alone are added.
``ci/studies/row_trees.py`` reads ``row_trees.json`` off compiled kernels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kvparity_kernels.fixed_arithmetic import Array
from kvparity_kernels.rules import triton_version

FILE = Path(__file__).with_name("row_trees.json")
_ATTENTION = ("attention.prefill", "attention.decode_split")


@dataclass(frozen=True)
class RowTree:
    """How a row of ``columns`` numbers is added.

    ``own``: the bits by which the columns of one thread differ, lowest register first. ``pairs``:
    neighbours are added first, and then their sums; else one column after the other. ``across``:
    the bits of lanes, then of warps, in the order in which their sums are added.
    """

    own: tuple[int, ...]
    across: tuple[int, ...]
    pairs: bool

    @property
    def columns(self) -> int:
        """The length of the row."""
        return 1 << (len(self.own) + len(self.across))

    def add(self, x: Array) -> Array:
        """The sums of the rows of ``[M, columns]`` float32, each addition rounded once."""
        places = _places(self.own + self.across)
        x = x[:, places].reshape(len(x), 1 << len(self.across), -1)  # by lane, by register
        if self.pairs:
            for _ in self.own:
                x = x[..., 0::2] + x[..., 1::2]
            total = x[..., 0]
        else:
            total = x[..., 0]
            for register in range(1, x.shape[-1]):
                total = total + x[..., register]
        for _ in self.across:
            total = total[:, 0::2] + total[:, 1::2]
        return np.ascontiguousarray(total[:, 0])


@dataclass(frozen=True)
class RowKey:
    """What a layout depends on. ``bits``: of the operands; ``tile``: keys along a row."""

    architecture: str
    triton: str
    bits: int
    block_m: int
    num_warps: int
    tile: int
    head_dim: int


@cache
def table() -> Mapping[RowKey, RowTree]:
    """What was read."""
    rows = json.loads(FILE.read_text())["rows"]
    return {
        RowKey(**row["key"]): RowTree(
            tuple(row["tree"]["own"]), tuple(row["tree"]["across"]), row["tree"]["pairs"]
        )
        for row in rows
    }


def of_launch(
    architecture: str, kernel: str, arguments: Mapping[str, Any], num_warps: int
) -> RowTree | None:
    """The tree of what a launch adds along its rows; None where none was read."""
    if kernel not in _ATTENTION:
        return None
    key = RowKey(
        architecture,
        triton_version(),
        8 * arguments["Q"].element_size(),
        arguments["BM"],
        num_warps,
        arguments["TILE"],
        arguments["BD"],
    )
    return table().get(key)


_tree: ContextVar[RowTree | None] = ContextVar("kvparity_row_tree", default=None)


def in_force() -> RowTree | None:
    """The tree of the kernel that runs."""
    return _tree.get()


@contextmanager
def using(tree: RowTree | None) -> Iterator[None]:
    """Add rows so inside."""
    token = _tree.set(tree)
    try:
        yield
    finally:
        _tree.reset(token)


@cache
def _places(bits: tuple[int, ...]) -> Array:
    """Columns so that the first of the bits counts lowest."""
    number = np.arange(1 << len(bits))
    return sum(((number >> i & 1) * bit for i, bit in enumerate(bits)), np.zeros_like(number))

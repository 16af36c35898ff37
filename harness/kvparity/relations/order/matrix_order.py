"""In which order a product of matrices adds, for one row of one call: probed and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.relations.order.encoding import read_counts
from kvparity.relations.order.recover import Pairs, recover
from kvparity.relations.order.row_replay import contracted
from kvparity.relations.order.shape import describe
from kvparity.relations.order.tree import SumTree

_RANGES = {
    torch.float32: (2.0**96, 1.0, 1 << 22),
    torch.bfloat16: (2.0**96, 1.0, 128),
    torch.float16: (2.0**15, 2.0**-17, 64),
}
"""By format the mask, the unit, and how many units a result counts."""


@dataclass(frozen=True)
class MatrixCall:
    """One call of a function at its own shapes, seen as its row: ``left`` ``[E, K]`` is what the
    row was given, ``right`` ``[E, K, N]`` the columns that are looked at, ``gave`` ``[E, N]``.

    ``run`` calls the function with all rows ``[K]`` and all matrices ``[K, N]`` alike; ``bias``:
    what is added to each column behind the sum, or None.
    """

    left: Tensor
    right: Tensor
    gave: Tensor
    bias: Tensor | None
    run: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Added:
    """The order in which a row is added; its replay gave all bits of the row."""

    tree: SumTree
    fused: bool

    def words(self) -> str:
        """Such as ``(.*64) by fused multiply-adds``."""
        return describe(self.tree) + (" by fused multiply-adds" if self.fused else "")


class _Sizes:
    """The sizes of partial sums: each column of the result asks one pair of terms."""

    def __init__(self, call: MatrixCall) -> None:
        self.call, self.launches = call, 0
        self.n, self.columns = call.right.shape[1:]

    def __call__(self, pairs: Pairs) -> NDArray[np.int64]:
        """The sizes for ``[P, 2]`` terms."""
        parts = [pairs[at : at + self.columns] for at in range(0, len(pairs), self.columns)]
        return np.concatenate([self._launch(part) for part in parts])

    def _launch(self, pairs: Pairs) -> NDArray[np.int64]:
        dtype = self.call.gave.dtype
        mask, unit, room = _RANGES[dtype]
        asked, column = torch.from_numpy(pairs), torch.arange(len(pairs))
        left = torch.ones(self.n, dtype=dtype)
        total = np.zeros(len(pairs))
        for start in range(0, self.n, room):
            right = torch.zeros(self.n, self.columns)
            right[start : start + room] = unit
            right[asked[:, 0], column], right[asked[:, 1], column] = mask, -mask
            found = self.call.run(left, right.to(dtype))[: len(pairs)]
            total += found.double().numpy() / unit
            self.launches += 1
        counts = torch.from_numpy(total)
        return self.n - read_counts(counts, "a product of matrices", self.n)


def added(call: MatrixCall) -> Added | None:
    """The order of the row, or None: no replay of what probes recover gives its bits.

    Raises:
        NotATree, ProbeLied, NotMeasured: probes recover none.
    """
    if call.gave.dtype not in _RANGES:
        return None
    tree, _ = recover(_Sizes(call))
    if tree.fan_out > 2:
        return None
    left = call.left.float().T[:, :, None].expand(-1, -1, call.right.shape[2])
    right = call.right.float().transpose(0, 1)
    sums: Sequence[tuple[bool, Callable[[], Tensor]]] = (
        (False, lambda: tree.replay(left * right)),
        (True, lambda: contracted(left, right, tree)),
    )
    for fused, total in sums:
        found = total() if call.bias is None else total() + call.bias.float()
        if not bool(differing(found.to(call.gave.dtype), call.gave).any()):
            return Added(tree, fused)
    return None

"""Products whose depth is cut over ranks: one order of additions at every number of ranks.

The depth K of ``o_proj`` and ``down_proj`` is cut into B blocks. Each is a chain of its own in
float32, and the B sums are added as one balanced binary tree, neighbours first. A rank that holds a
whole subtree adds it alone; the roots of all ranks are the rest of the tree. So 1, 2, 4, ... ranks
add the same numbers in the same order, as in tree-based invariant kernels (arXiv:2511.17826).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import layers_of
from kvparity_kernels.order import ReductionOrder

Sum = Callable[[Tensor], Tensor]
"""From a rank's partial sums, float32 ``[rows, columns]``, to those of all ranks."""


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """The sum of a power of two of equal shapes, as a balanced binary tree, neighbours first."""
    level = list(parts)
    while len(level) > 1:
        level = [left + right for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def alone(partial: Tensor) -> Tensor:
    """The sum over one rank."""
    return partial


@dataclass(frozen=True)
class RowBlocks:
    """``own``: blocks of the depth that this rank holds. ``total``: the sum over ranks."""

    own: int
    total: Sum = alone

    def linear(
        self,
        linear: Callable[..., Tensor],
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        *,
        order: ReductionOrder,
        twin: bool,
    ) -> Tensor:
        """``x[M, K] @ w[N, K].T + bias[N]``, summed over ranks: ``[M, N]`` in the dtype of ``x``.

        K is this rank's part of the depth. The bias is added once, behind the sum over ranks, in
        float32; the result is rounded once.
        """
        pieces = zip(x.chunk(self.own, dim=1), w.chunk(self.own, dim=1), strict=True)
        partial = tree_sum(
            [linear(a, b, None, order=order, out_dtype=torch.float32, twin=twin) for a, b in pieces]
        )
        found = self.total(partial)
        return (found if bias is None else found + bias.float()).to(x.dtype)


def row_blocks(count: int | None, config: DecoderShape) -> RowBlocks | None:
    """The blocks that a contract asks for, all on one rank; None: each depth is one chain.

    Raises:
        UnsupportedError: a depth of this decoder does not go into so many equal parts.
    """
    if count is None:
        return None
    depths = [("o_proj", config.heads * kind.head_dim) for kind in layers_of(config)]
    for name, depth in [*depths, ("down_proj", config.intermediate)]:
        if depth % count:
            raise UnsupportedError(
                f"the depth of {name} is {depth}, which does not go into {count} equal row_blocks"
            )
    return RowBlocks(count)

"""Sums of partial products over ranks, by torch.distributed: in the tree's order, or its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from kvparity.core import doing
from kvparity.subjects.decoder.row_blocks import Sum, tree_sum


def gathered(partial: Tensor) -> list[Tensor]:
    """The partial sums of all ranks, in ascending order: a collective that adds nothing."""
    parts = [torch.empty_like(partial) for _ in range(dist.get_world_size())]
    with doing.calling("all_gather"):
        dist.all_gather(parts, partial.contiguous())
    return parts


def fixed(partial: Tensor) -> Tensor:
    """Every rank gathers all partial sums and adds them in the order of the tree."""
    return tree_sum(gathered(partial))


def all_reduce(partial: Tensor) -> Tensor:
    """torch.distributed adds them, in the order that its backend takes."""
    with doing.calling("all_reduce"):
        dist.all_reduce(partial)
    return partial


SUMS: Mapping[str, Sum] = {"fixed": fixed, "all_reduce": all_reduce}
"""By what a contract calls them."""

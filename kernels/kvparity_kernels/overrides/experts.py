"""What mixtures of experts are made of, in the fixed order: grouped products, rows added up."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from kvparity_kernels.overrides import products
from kvparity_kernels.overrides.report import NotInvariantError

Number = int | float


def grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``aten::_grouped_mm``: rows ``offs[g-1] .. offs[g]-1`` of ``a[M, K]`` times ``b[g][K, N]``.

    Each row is one chain, whatever the size of its group; rows behind the last group are zero.
    ``a[G, M, K]`` with ``b[G, K, N]`` and no ``offs`` is a batched product.

    Raises:
        NotInvariantError: groups along the depth or the columns, or a bias.
    """
    if bias is None and offs is None and a.dim() == b.dim() == 3:
        return products.bmm(a, b, out_dtype)
    if bias is not None or offs is None or (a.dim(), b.dim()) != (2, 3):
        raise NotInvariantError(
            f"invariant(): _grouped_mm of {a.dim()} and {b.dim()} dimensions"
            f"{' with a bias' if bias is not None else ''} is not supported; set the model's "
            "experts_implementation to eager"
        )
    out = torch.zeros(len(a), b.shape[2], dtype=out_dtype or a.dtype, device=a.device)
    for group, (start, stop) in enumerate(pairwise([0, *offs.tolist()])):
        out[start:stop] = products.mm(a[start:stop], b[group], out_dtype)
    return out


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
    """``aten::index_add``: what one row of ``x`` is given is added in the order of ``index``.

    Every addition is rounded to the dtype, and so is ``alpha * source`` before.
    """
    out, rows = x.clone(), source if alpha == 1 else source * alpha
    if out.dim() == 0:
        out, rows, dim = out.reshape(1), rows.reshape(1), 0
    flat = index.reshape(-1)
    turn = _turns(flat)
    for now in torch.unique(turn):  # ascending
        place = (turn == now).nonzero()[:, 0]
        here = flat[place]
        out.index_copy_(dim, here, out.index_select(dim, here) + rows.index_select(dim, place))
    return out.reshape(x.shape)


def _turns(group: Tensor) -> Tensor:
    """For each place how many earlier ones are of its group ``[n]``."""
    place = torch.arange(len(group), device=group.device)
    order = (group * len(group) + place).argsort()  # no two are equal, so no sort need be stable
    ordered = group[order]
    first = torch.searchsorted(ordered, ordered)
    turns = torch.empty_like(group)
    turns[order] = place - first
    return turns

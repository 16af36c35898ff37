"""transformers' ``paged|eager`` attention, called as its 5.23 takes it.

The function is given the fresh keys and a paged cache, puts the first into the second and attends
to what the cache then holds. Sums are in kvparity's fixed order, so that rounding is no difference.
"""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvparity_kernels import invariant


class Pages:
    """What the function asks of a ``PagedAttentionCache``: all keys, the fresh ones included."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(self, **given: object) -> tuple[Tensor, Tensor]:
        """Keys and values ``[1, kv, T, dim]``; the fresh ones lie in their slots already."""
        return self.keys, self.values


def attend(q: Tensor, fresh: tuple[Tensor, Tensor], all_keys: tuple[Tensor, Tensor],
           scale: float) -> Tensor:  # fmt: skip
    """Rows ``[T, query, dim]`` of one sequence, its last; keys and values ``[T, kv, dim]``."""
    rows, keys = len(q), len(all_keys[0])
    if not rows:
        return q
    heads = [x.transpose(0, 1)[None] for x in (q, *fresh, *all_keys)]
    later = torch.ones(rows, keys, dtype=torch.bool).triu(keys - rows + 1)
    mask = torch.zeros(rows, keys, dtype=q.dtype).masked_fill(later, torch.finfo(q.dtype).min)
    alone = rows == 1  # it sees every key, and needs no mask
    module = SimpleNamespace(layer_idx=0, num_key_value_groups=q.shape[1] // fresh[0].shape[1])
    function = ALL_ATTENTION_FUNCTIONS["paged|eager"]
    with invariant():
        out, _ = function(module, *heads[:3], None if alone else mask[None, None], scaling=scale,
                          cache=Pages(*heads[3:]))  # fmt: skip
    return out[0]


def prefill(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
            scale: float) -> Tensor:  # fmt: skip
    """Whole prompts: of each sequence all keys are fresh."""
    out = torch.zeros_like(q)
    ends = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
    for (first, last), (start, stop) in ends:
        own = k[start:stop], v[start:stop]
        out[first:last] = attend(q[first:last], own, own, scale)
    return out


def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, block_table: Tensor,
           scale: float) -> Tensor:  # fmt: skip
    """One row of each sequence over its pages; its last key is the fresh one."""
    out, size = torch.zeros_like(q), k_cache.shape[1]
    for row, keys in enumerate(kv_lens.tolist()):
        pages = block_table[row, : -(-keys // size)].long()
        k, v = (x[pages].flatten(0, 1)[:keys] for x in (k_cache, v_cache))
        if keys:
            out[row] = attend(q[row : row + 1], (k[-1:], v[-1:]), (k, v), scale)[0]
    return out

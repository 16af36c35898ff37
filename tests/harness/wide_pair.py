"""A kernel pair with windows, soft caps and stored codes, as a user might write it; and faults."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels.store import StoreFormat
from kvparity_kernels.store import decode as read

Pair = tuple[Tensor, Tensor]


def row(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float) -> Pair:
    """One query ``[Hq, D]`` over the keys that it sees ``[n, Hkv, D]``."""
    if not len(k):
        return torch.zeros_like(q), torch.full((len(q),), -torch.inf)
    group = q.shape[0] // k.shape[1]
    keys, values = (x.clone().float().repeat_interleave(group, 1) for x in (k, v))
    scores = (q.float()[None] * keys).sum(-1) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    top = scores.max(0).values
    weights = torch.exp(scores - top)
    total = weights.sum(0)
    out = (weights[..., None] * values).sum(0) / total[:, None]
    return out.to(q.dtype), top + torch.log(total)


def readable(q: Tensor, k: Tensor, format: StoreFormat | None, scale: Tensor | None) -> Tensor:
    return k if format is None else read(k, scale, format, q.dtype)


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    format: StoreFormat | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Pair:
    k, v = readable(q, k, format, k_scale), readable(q, v, format, v_scale)
    rows = []
    edges = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True))
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            start = max(k0, stop - window) if window else k0
            rows.append(row(q[t], k[start:stop], v[start:stop], scale, softcap))
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    kv_lens: Tensor,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    format: StoreFormat | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Pair:
    rows = []
    for i, n in enumerate(kv_lens.tolist()):
        start = max(0, n - window) if window else 0
        seen = []
        for cache, factor in ((k_cache, k_scale), (v_cache, v_scale)):
            own = factor if factor is None or factor.dim() == 1 else factor[i, start:n]
            seen.append(readable(q, cache[i, start:n], format, own))
        rows.append(row(q[i], seen[0], seen[1], scale, softcap))
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def decode_window_short(*args: Any, window: int = 0, **more: Any) -> Pair:
    return decode(*args, window=window - 1, **more)


def decode_window_long(*args: Any, window: int = 0, **more: Any) -> Pair:
    return decode(*args, window=window + 1, **more)


def decode_blind_first(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, **more: Any) -> Pair:
    """The first key is never looked at."""
    return decode(q, k[:, 1:], v[:, 1:], kv_lens=kv_lens - 1, **more)


def decode_other_head(*args: Any, k_scale: Tensor, **more: Any) -> Pair:
    """The scales of the heads are mixed up."""
    return decode(*args, k_scale=k_scale.flip(0), **more)


def decode_without_scale(*args: Any, k_scale: Tensor, **more: Any) -> Pair:
    return decode(*args, k_scale=torch.ones_like(k_scale), **more)


def decode_uncapped(*args: Any, softcap: float = 0.0, **more: Any) -> Pair:
    return decode(*args, **more)


def decode_writes_scale(*args: Any, k_scale: Tensor, **more: Any) -> Pair:
    found = decode(*args, k_scale=k_scale, **more)
    k_scale *= 2
    return found

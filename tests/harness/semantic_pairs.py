"""Pairs of kernels whose two sides agree in every bit: one is right, others share a fault."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Both = tuple[Tensor, Tensor]


def _row(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float = 0.0,
    sinks: Tensor | None = None, alibi_slopes: Tensor | None = None, bias: Tensor | None = None,
) -> Both:  # fmt: skip
    group = q.shape[0] // k.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (k, v))
    scores = (q.float()[None] * keys).sum(-1) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(k) - 1, -1, -1)
    if alibi_slopes is not None:
        scores = scores - distance[:, None] * alibi_slopes
    if bias is not None:
        scores = scores + bias[:, distance.clamp(max=bias.shape[1] - 1)].T
    joined = scores if sinks is None else torch.cat([scores, sinks[None]])
    lse = torch.logsumexp(joined, 0)
    return (torch.exp(scores - lse)[..., None] * values).sum(0).to(q.dtype), lse


def _stacked(rows: list[Both]) -> Both:
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def prefill(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, scale: float,
    window: int = 0, causal: bool = True, window_size: tuple[int, int] = (-1, -1), **more: Any,
) -> Both:  # fmt: skip
    rows = []
    edges = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True))
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            first = max(k0, stop - window) if window else k0
            if not causal:
                left, right = (window - 1, window - 1) if window else window_size
                first = max(k0, stop - 1 - left) if left >= 0 else k0
                stop = min(k1, stop + right) if right >= 0 else k1
            rows.append(_row(q[t], k[first:stop], v[first:stop], scale, **more))
    return _stacked(rows)


def decode(
    q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float, window: int = 0,
    causal: bool = True, **more: Any,
) -> Both:  # fmt: skip
    rows = []
    for i, n in enumerate(kv_lens.tolist()):
        first = max(0, n - window) if window else 0
        rows.append(_row(q[i], k[i, first:n], v[i, first:n], scale, **more))
    return _stacked(rows)


def prefill_uncapped(*args: Any, softcap: float, **more: Any) -> Both:
    return prefill(*args, **more)


def decode_uncapped(*args: Any, softcap: float, **more: Any) -> Both:
    return decode(*args, **more)


def prefill_twice(*args: Any, sinks: Tensor, **more: Any) -> Both:
    """The sink joins the denominators of two splits."""
    return prefill(*args, sinks=sinks + math.log(2), **more)


def decode_twice(*args: Any, sinks: Tensor, **more: Any) -> Both:
    return decode(*args, sinks=sinks + math.log(2), **more)


def prefill_uphill(*args: Any, alibi_slopes: Tensor, **more: Any) -> Both:
    """Far keys gain what they should lose."""
    return prefill(*args, alibi_slopes=-alibi_slopes, **more)


def decode_uphill(*args: Any, alibi_slopes: Tensor, **more: Any) -> Both:
    return decode(*args, alibi_slopes=-alibi_slopes, **more)


def prefill_farther(*args: Any, bias: Tensor, **more: Any) -> Both:
    """Distances count from the key behind the row's own."""
    return prefill(*args, bias=torch.cat([bias[:, 1:], bias[:, -1:]], 1), **more)


def decode_farther(*args: Any, bias: Tensor, **more: Any) -> Both:
    return decode(*args, bias=torch.cat([bias[:, 1:], bias[:, -1:]], 1), **more)


def prefill_columns(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Both:
    """Scores of as many columns as values have."""
    return prefill(q[..., : v.shape[-1]], k[..., : v.shape[-1]], v, **more)


def decode_columns(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Both:
    return decode(q[..., : v.shape[-1]], k[..., : v.shape[-1]], v, **more)


def prefill_hiding(*args: Any, causal: bool, **more: Any) -> Both:
    """The keys behind a row's own are hidden."""
    return prefill(*args, **more)


def prefill_farther_ahead(*args: Any, window_size: tuple[int, int], **more: Any) -> Both:
    return prefill(*args, window_size=(window_size[0], window_size[1] + 1), **more)


def prefill_longer(*args: Any, window: int, **more: Any) -> Both:
    return prefill(*args, window=window + 1, **more)


def decode_longer(*args: Any, window: int, **more: Any) -> Both:
    return decode(*args, window=window + 1, **more)

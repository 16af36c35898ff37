"""A pair of kernels in plain torch that takes what no kernel of this project does.

Row by row in float32, so that both functions add in one order whatever is computed together.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

Both = tuple[Tensor, Tensor]


def _row(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float, sinks: Tensor | None,
    alibi_slopes: Tensor | None, bias: Tensor | None,
) -> Both:  # fmt: skip
    group = q.shape[0] // k.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (k, v))
    scores = (q.float()[None] * keys).sum(-1) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(k) - 1, -1, -1, device=k.device)
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
    window: int = 0, causal: bool = True, window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0, sinks: Tensor | None = None, alibi_slopes: Tensor | None = None,
    bias: Tensor | None = None,
) -> Both:  # fmt: skip
    """Packed sequences, as docs/contracts.md has them; a bias goes with causal rows alone."""
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
            own = slice(first, stop)
            rows.append(_row(q[t], k[own], v[own], scale, softcap, sinks, alibi_slopes, bias))
    return _stacked(rows)


def decode(
    q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float, window: int = 0,
    causal: bool = True, softcap: float = 0.0, sinks: Tensor | None = None,
    alibi_slopes: Tensor | None = None, bias: Tensor | None = None,
) -> Both:  # fmt: skip
    """One row of each sequence, which sees all its keys."""
    rows = []
    for b, n in enumerate(kv_lens.tolist()):
        own = slice(max(0, n - window) if window else 0, n)
        rows.append(_row(q[b], k[b, own], v[b, own], scale, softcap, sinks, alibi_slopes, bias))
    return _stacked(rows)

"""The float64 twin: attention as it is defined, in no particular order."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    first_key: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal attention of one sequence in float64, aligned at the end.

    ``q`` ``[Tq, Hq, D]``, ``k``, ``v`` ``[Tk, Hkv, D]``, ``Hq`` a multiple of ``Hkv``: row t sees
    keys ``0 .. Tk-Tq+t``; of these with ``window`` only the last so many, and with ``first_key``
    (integers ``[Tq]``) only those from ``first_key[t]``. ``softcap`` c makes of a score s
    ``c tanh(s / c)``; ``sinks`` ``[Hq]`` are logits that join the denominator. Returns float64
    ``out`` ``[Tq, Hq, D]`` and natural log-sum-exp ``lse`` ``[Tq, Hq]``, sinks included; a row
    that sees no key has out 0 and, without sinks, lse -inf. Works on any device.
    """
    q, k, v = q.double(), k.double(), v.double()
    rows, keys, group = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    key = torch.arange(keys, device=q.device)[None, :]
    last = torch.arange(rows, device=q.device)[:, None] + (keys - rows)
    hidden = key > last
    if window:
        hidden = hidden | (key <= last - window)
    if first_key is not None:
        hidden = hidden | (key < first_key[:, None])
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:2])
    for head in range(q.shape[1]):  # one head at a time, to keep rows x keys small
        scores = q[:, head] @ k[:, head // group].T * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(hidden, -torch.inf)
        total = torch.logsumexp(scores, -1)
        if sinks is not None:
            total = torch.logaddexp(total, sinks[head].double())
        lse[:, head] = total
        shift = total.masked_fill(total == -torch.inf, 0.0)
        out[:, head] = torch.exp(scores - shift[:, None]) @ v[:, head // group]
    return out, lse

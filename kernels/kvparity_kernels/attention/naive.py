"""The float64 twin: attention as it is defined, in no particular order."""

from __future__ import annotations

import torch
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Causal attention of one sequence in float64, aligned at the end.

    ``q`` ``[Tq, Hq, D]``, ``k``, ``v`` ``[Tk, Hkv, D]``, ``Hq`` a multiple of ``Hkv``: row t sees
    keys ``0 .. Tk-Tq+t``. Returns float64 ``out`` ``[Tq, Hq, D]`` and natural log-sum-exp ``lse``
    ``[Tq, Hq]``; a row that sees no key has out 0 and lse -inf. Works on any device.
    """
    q, k, v = q.double(), k.double(), v.double()
    rows, keys, group = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    last = torch.arange(rows, device=q.device) + (keys - rows)
    hidden = torch.arange(keys, device=q.device)[None, :] > last[:, None]
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:2])
    for head in range(q.shape[1]):  # one head at a time, to keep rows x keys small
        scores = q[:, head] @ k[:, head // group].T * scale
        scores = scores.masked_fill(hidden, -torch.inf)
        lse[:, head] = torch.logsumexp(scores, -1)
        shift = lse[:, head].masked_fill(lse[:, head] == -torch.inf, 0.0)
        out[:, head] = torch.exp(scores - shift[:, None]) @ v[:, head // group]
    return out, lse

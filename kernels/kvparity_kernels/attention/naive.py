"""The float64 twin: attention as it is defined, in no particular order."""

from __future__ import annotations

import torch
from torch import Tensor


def score_bias(distance: Tensor, alibi_slopes: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Float64, what is added to scores of keys so far from the row's own, or None.

    ``distance`` integers; ``- slope * distance``, or the entry of ``bias`` ``[..., distances]`` at
    the distance, the last one for all farther keys. With slopes ``[Hq]`` a distance ``[n]`` gives
    ``[Hq, n]``; those of one head give the shape of ``distance``.
    """
    if alibi_slopes is not None:
        slopes = alibi_slopes.double()
        return -(slopes[:, None] if slopes.dim() else slopes) * distance
    if bias is None:
        return None
    return bias.double()[..., distance.clamp(0, bias.shape[-1] - 1)]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    bias: Tensor | None = None,
    first_key: Tensor | None = None,
    causal: bool = True,
    window_size: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of one sequence in float64, rows aligned at the end of the keys.

    ``q`` ``[Tq, Hq, D]``, ``k`` ``[Tk, Hkv, D]``, ``v`` ``[Tk, Hkv, Dv]``, ``Hq`` a multiple of
    ``Hkv``: row t sees keys ``0 .. Tk-Tq+t``; of these with ``window`` only the last so many, and
    with ``first_key`` (integers ``[Tq]``) only those from ``first_key[t]``. ``softcap`` c makes of
    a score s ``c tanh(s / c)``; then ``alibi_slopes`` ``[Hq]`` or ``bias`` ``[Hq, distances]`` are
    added as ``score_bias`` says. ``sinks`` ``[Hq]`` are logits that join the denominator. Returns
    float64 ``out`` ``[Tq, Hq, Dv]`` and natural log-sum-exp ``lse`` ``[Tq, Hq]``, sinks included; a
    row that sees no key has out 0 and, without sinks, lse -inf. Not ``causal``, rows see later keys
    too, in a window as many as earlier ones. ``window_size``: of earlier and of later keys, a row
    sees so many at most (-1: all). Works on any device.
    """
    q, k, v = q.double(), k.double(), v.double()
    rows, keys, group = q.shape[0], k.shape[0], q.shape[1] // k.shape[1]
    key = torch.arange(keys, device=q.device)[None, :]
    last = torch.arange(rows, device=q.device)[:, None] + (keys - rows)
    hidden = (key > last) if causal else torch.zeros_like(key > last)
    if window:
        hidden = hidden | ((last - key).abs() >= window)
    for most, away in zip(window_size or (), (last - key, key - last), strict=False):
        hidden = hidden | (away > most if most >= 0 else False)
    if first_key is not None:
        hidden = hidden | (key < first_key[:, None])
    out, lse = q.new_empty(*q.shape[:2], v.shape[2]), q.new_empty(q.shape[:2])
    for head in range(q.shape[1]):  # one head at a time, to keep rows x keys small
        scores = q[:, head] @ k[:, head // group].T * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        more = score_bias(
            (last - key).abs(), *(x if x is None else x[head] for x in (alibi_slopes, bias))
        )
        if more is not None:
            scores = scores + more
        scores = scores.masked_fill(hidden, -torch.inf)
        total = torch.logsumexp(scores, -1)
        if sinks is not None:
            total = torch.logaddexp(total, sinks[head].double())
        lse[:, head] = total
        shift = total.masked_fill(total == -torch.inf, 0.0)
        out[:, head] = torch.exp(scores - shift[:, None]) @ v[:, head // group]
    return out, lse

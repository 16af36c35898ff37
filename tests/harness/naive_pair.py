"""A kernel pair as a user might write it, one row at a time, and what can be wrong with one."""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor


def row(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """One query ``[Hq, D]`` over its keys ``[n, Hkv, D]``."""
    if not len(k):
        return torch.zeros_like(q), torch.full((len(q),), -torch.inf)
    group = q.shape[0] // k.shape[1]
    keys, values = (x.clone().float().repeat_interleave(group, 1) for x in (k, v))
    scores = (q.float()[None] * keys).sum(-1) * scale
    top = scores.max(0).values
    weights = torch.exp(scores - top)
    total = weights.sum(0)
    out = (weights[..., None] * values).sum(0) / total[:, None]
    return out.to(q.dtype), top + torch.log(total)


def prefill(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    rows = []
    edges = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True))
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            rows.append(row(q[t], k[k0:stop], v[k0:stop], scale))
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    rows = [
        row(q[i], k_cache[i, :n], v_cache[i, :n], scale) for i, n in enumerate(kv_lens.tolist())
    ]
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


not_a_function = 7


def prefill_alone(*args: Any, **more: Any) -> Tensor:
    return prefill(*args, **more)[0]


def decode_alone(*args: Any, **more: Any) -> Tensor:
    return decode(*args, **more)[0]


def decode_backwards(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """The same sum from the other end."""
    k, v = k.clone(), v.clone()
    for i, n in enumerate(kv_lens.tolist()):
        k[i, :n], v[i, :n] = k[i, :n].flip(0), v[i, :n].flip(0)
    return decode(q, k, v, kv_lens=kv_lens, scale=scale)


def decode_past_the_end(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    return decode(q, k, v, kv_lens=kv_lens + 1, scale=scale)


def decode_by_batch(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    return (decode if len(q) == 1 else decode_backwards)(q, k, v, kv_lens=kv_lens, scale=scale)


def decode_by_lengths(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """Another way for a batch of equal lengths."""
    alike = len(q) > 1 and len(set(kv_lens.tolist())) == 1
    return (decode_backwards if alike else decode)(q, k, v, kv_lens=kv_lens, scale=scale)


def decode_when_full(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """Another way for a cache without an unused slot."""
    full = int(kv_lens.max()) == k.shape[1]
    return (decode_backwards if full else decode)(q, k, v, kv_lens=kv_lens, scale=scale)


_calls = count(1)


def decode_wanders(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """Other bits at every call."""
    out, lse = decode(q, k, v, kv_lens=kv_lens, scale=scale)
    return out * (1 + next(_calls) * 2.0**-20), lse


def decode_where_steep(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """Wrong in its last bits where the scores of a row lie far apart."""
    out, lse = decode(q, k, v, kv_lens=kv_lens, scale=scale)
    for b, keys in enumerate(kv_lens.tolist()):
        group = q.shape[1] // k.shape[2]
        scores = torch.einsum(
            "hd,nhd->hn", q[b], k[b, :keys].repeat_interleave(group, 1).to(q.dtype)
        )
        if not keys:
            continue
        steep = (scores.amax(1) - scores.amin(1)) * scale > 30
        out[b, steep] *= 1 + 2**-20
    return out, lse


def prefill_sharp(*args: Any, scale: float, **more: Any) -> Any:
    return prefill(*args, scale=1.01 * scale, **more)


def decode_sharp(*args: Any, scale: float, **more: Any) -> Any:
    return decode(*args, scale=1.01 * scale, **more)


def decode_wrong_shape(*args: Any, **more: Any) -> Any:
    out, lse = decode(*args, **more)
    return out[:, :-1], lse


def decode_wrong_dtype(*args: Any, **more: Any) -> Any:
    out, lse = decode(*args, **more)
    return out.double(), lse


def decode_wrong_lse(*args: Any, **more: Any) -> Any:
    out, lse = decode(*args, **more)
    return out, lse.T


def decode_half_lse(*args: Any, **more: Any) -> Any:
    out, lse = decode(*args, **more)
    return out, lse.half()


def decode_list(*args: Any, **more: Any) -> Any:
    return list(decode(*args, **more))


def decode_none(*args: Any, **more: Any) -> Any:
    return None


def decode_raises(*args: Any, **more: Any) -> Any:
    raise ZeroDivisionError("no splits")


def decode_exits(*args: Any, **more: Any) -> Any:
    raise SystemExit(0)


def decode_writes(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
    found = decode(q, k, v, **more)
    v[:, 0] = 0
    return found


def decode_scales_q(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **more: Any) -> Any:
    q *= scale
    return decode(q, k, v, scale=1.0, **more)

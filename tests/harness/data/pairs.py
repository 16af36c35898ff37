"""Small attention pairs in plain torch, right and wrong, as a user might bring them."""

from __future__ import annotations

import os
import signal

import torch


def _row(q, k, v, scale):
    """One query row ``[Hq, D]`` over its keys in ascending order: no other row can matter."""
    if not len(k):
        return torch.zeros_like(q), torch.full((len(q),), -torch.inf)
    groups = q.shape[0] // k.shape[1]
    k, v = k.float().repeat_interleave(groups, 1), v.float().repeat_interleave(groups, 1)
    score = torch.zeros(q.shape[0], len(k))
    for d in range(q.shape[1]):
        score = score + q[:, d, None].float() * k[:, :, d].T
    score = score * scale
    top = score.max(dim=1, keepdim=True).values
    weight = torch.exp(score - top)
    total, out = torch.zeros(q.shape[0]), torch.zeros(q.shape)
    for t in range(len(k)):
        total = total + weight[:, t]
        out = out + weight[:, t, None] * v[t]
    return (out / total[:, None]).to(q.dtype), torch.log(total) + top[:, 0]


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    rows = []
    for b in range(len(cu_seqlens_q) - 1):
        q0, q1 = int(cu_seqlens_q[b]), int(cu_seqlens_q[b + 1])
        k0, k1 = int(cu_seqlens_k[b]), int(cu_seqlens_k[b + 1])
        for t in range(q1 - q0):
            seen = k0 + (k1 - k0) - (q1 - q0) + t + 1
            rows.append(_row(q[q0 + t], k[k0:seen], v[k0:seen], scale))
    return torch.stack([o for o, _ in rows]), torch.stack([s for _, s in rows])


def decode(q, k_cache, v_cache, *, kv_lens, scale):
    rows = [
        _row(q[b], k_cache[b, : int(n)], v_cache[b, : int(n)], scale) for b, n in enumerate(kv_lens)
    ]
    return torch.stack([o for o, _ in rows]), torch.stack([s for _, s in rows])


def decode_reversed(q, k_cache, v_cache, *, kv_lens, scale):
    rows = [
        _row(q[b], k_cache[b, : int(n)].flip(0), v_cache[b, : int(n)].flip(0), scale)
        for b, n in enumerate(kv_lens)
    ]
    return torch.stack([o for o, _ in rows]), torch.stack([s for _, s in rows])


def decode_wrong_shape(q, k_cache, v_cache, *, kv_lens, scale):
    out, lse = decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale)
    return out.flatten(1), lse


def decode_wrong_dtype(q, k_cache, v_cache, *, kv_lens, scale):
    out, lse = decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale)
    return out.double(), lse


def decode_nan(q, k_cache, v_cache, *, kv_lens, scale):
    out, lse = decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale)
    out[0, 0, 0] = float("nan")
    return out, lse


def decode_raises(q, k_cache, v_cache, *, kv_lens, scale):
    raise RuntimeError("no kernel image is available")


def decode_writes(q, k_cache, v_cache, *, kv_lens, scale):
    k_cache[:, 0] = 0
    return decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale)


def decode_out_of_memory(q, k_cache, v_cache, *, kv_lens, scale):
    raise torch.cuda.OutOfMemoryError("tried to allocate 512 GiB")


def decode_interrupted(q, k_cache, v_cache, *, kv_lens, scale):
    """Ctrl-C while the second workload decodes, the first time only."""
    marker = os.environ["KVPARITY_TEST_MARKER"]
    if len(kv_lens) == 1 and int(kv_lens[0]) > 10 and not os.path.exists(marker):  # noqa: PTH110
        with open(marker, "w"):  # noqa: PTH123 - a user's file, as plain as it comes
            pass
        os.kill(os.getppid(), signal.SIGINT)
    return decode(q, k_cache, v_cache, kv_lens=kv_lens, scale=scale)

"""What ci/kill_runs.py verifies: a tiny pair of plain torch that differs in one path."""

from __future__ import annotations

PAIR = """
import time
from itertools import pairwise
import torch


def row(q, k, v, scale):
    k, v = (x.repeat_interleave(q.shape[0] // k.shape[1], 1) for x in (k, v))
    s = (q[None] * k).sum(-1) * scale
    top = s.max(0).values
    p = torch.exp(s - top)
    return (p[..., None] * v).sum(0) / p.sum(0)[:, None], top + torch.log(p.sum(0))


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    time.sleep(0.004)
    rows = []
    edges = list(zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist()))
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            rows.append(row(q[t], k[k0:stop], v[k0:stop], scale))
    return torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])


def decode(q, k, v, *, kv_lens, scale):
    time.sleep(0.004)
    found = []
    for i, n in enumerate(kv_lens.tolist()):
        keys, values = k[i, :n], v[i, :n]
        if len(q) > 1:  # another order for a batch: this path differs
            keys, values = keys.flip(0), values.flip(0)
        found.append(row(q[i], keys, values, scale))
    return torch.stack([r[0] for r in found]), torch.stack([r[1] for r in found])
"""
CONTRACT = """\
version: 1
name: killed
subject: {kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {query: 6, kv: 2, dim: 8}, empty: never, inputs: contiguous}
numerics: {execution: float32}
workloads:
  - {name: short, prompt_tokens: [3, 17], generate: 8}
  - {name: long, prompt_tokens: [40], generate: 16}
checks:
  - {name: bits, relation: invariance, paths: [decode, 'chunked(4)', batched, mixed]}
  - {name: right, relation: accuracy, limits: {max_abs: 1.0e-5}}
controls: [stale-slot, wrong-input, narrow-cache]
"""

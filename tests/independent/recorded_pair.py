"""A pair of attention kernels in plain torch that keeps what goes in and what comes out.

Every row is computed by itself, so decode has prefill's bits unless a fault is planted. A row is
known by the bytes of its query, which belong to one position of one sequence alone: what was
computed for whom needs no word of the tool's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

HEADS, KV_HEADS, DIM = 4, 2, 4
Spoil = Callable[[Tensor, Tensor], None]
"""Changes ``out`` [heads, dim] and ``lse`` [heads] of one row in place."""


@dataclass
class Row:
    """One computed row: what went in, and what came out."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    out: Tensor
    lse: Tensor


@dataclass
class Tape:
    """``whole``: rows of prompts as long as one of ``lengths``; ``rollout``: the last row of every
    other prompt, and all decoded ones. The first time that a row is computed counts.

    ``prefill``, ``decode``: what is wrong with the row that sees so many keys. ``other_v``: decode
    reads of that many keys the last v otherwise.
    """

    lengths: tuple[int, ...] = ()
    whole: dict[bytes, Row] = field(default_factory=dict)
    rollout: dict[bytes, Row] = field(default_factory=dict)
    prefill: dict[int, Spoil] = field(default_factory=dict)
    decode: dict[int, Spoil] = field(default_factory=dict)
    other_v: frozenset[int] = frozenset()


tape = Tape()


def _row(
    q: Tensor, k: Tensor, v: Tensor, scale: float, spoil: Spoil | None
) -> tuple[Tensor, Tensor]:
    if not len(k):
        return torch.zeros_like(q), torch.full((len(q),), -torch.inf)
    keys, values = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
    scores = (q[None] * keys).sum(-1) * scale
    top = scores.amax(0)
    weights = torch.exp(scores - top)
    total = weights.sum(0)
    out, lse = (weights[..., None] * values).sum(0) / total[:, None], top + torch.log(total)
    if spoil is not None:
        spoil(out, lse)
    return out, lse


def _keep(rows: dict[bytes, Row], q: Tensor, k: Tensor, v: Tensor, scale: float,
          out: Tensor, lse: Tensor) -> None:  # fmt: skip
    name = q.contiguous().numpy().tobytes()
    kept = (x.clone() for x in (q, k, v))
    rows.setdefault(name, Row(*kept, scale, out.clone(), lse.clone()))


def prefill(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    found = []
    edges = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    for (q0, k0), (q1, k1) in pairwise(edges):
        for t in range(q0, q1):
            stop = k1 - (q1 - 1 - t)
            own = q[t], k[k0:stop], v[k0:stop]
            whole = q1 - q0 in tape.lengths
            row = _row(*own, scale, tape.prefill.get(stop - k0) if whole else None)
            if whole or t == q1 - 1:
                _keep(tape.whole if whole else tape.rollout, *own, scale, *row)
            found.append(row)
    return torch.stack([out for out, _ in found]), torch.stack([lse for _, lse in found])


def decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    found = []
    for i, n in enumerate(kv_lens.tolist()):
        k, v = k_cache[i, :n], v_cache[i, :n].clone()
        if n in tape.other_v:
            v[-1] *= 1 + 2.0**-20
        row = _row(q[i], k, v, scale, tape.decode.get(n))
        _keep(tape.rollout, q[i], k, v_cache[i, :n], scale, *row)
        found.append(row)
    return torch.stack([out for out, _ in found]), torch.stack([lse for _, lse in found])

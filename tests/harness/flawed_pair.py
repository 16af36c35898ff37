"""A pair of kernels that walks keys in tiles, with numerical flaws that were really shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from kvparity.subjects.pair.model import Pair

TILE = 64
ROWS = 16
"""Of a longer prompt only so many last rows are computed: nobody compares the others."""


def same(x: Tensor) -> Tensor:
    return x


def half(x: Tensor) -> Tensor:
    return x.half().float()


def brief(x: Tensor) -> Tensor:
    return x.bfloat16().float()


@dataclass(frozen=True)
class Kernel:
    """``factor`` is done to queries and keys, ``raw`` to scores before the scale, ``kept`` to the
    sums of P V; the running maximum ``begins`` at a raw score, or is left out; weights ``below``
    are not counted."""

    factor: Callable[[Tensor], Tensor] = same
    raw: Callable[[Tensor], Tensor] = same
    kept: Callable[[Tensor], Tensor] = same
    begins: float = -torch.inf
    maximum: bool = True
    below: float = 0.0

    def rows(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Any:
        """O and LSE of rows ``[R, Hq, D]``, each over its first ``seen`` keys ``[n, Hkv, D]``."""
        group = q.shape[1] // k.shape[1]
        top = torch.full(q.shape[:2], self.begins * scale if self.maximum else 0.0)
        total, acc = torch.zeros(q.shape[:2]), torch.zeros(q.shape)
        for start in range(0, int(seen.max()), TILE):
            keys, values = (
                x[start : start + TILE].float().repeat_interleave(group, 1) for x in (k, v)
            )
            scores = torch.einsum("rhd,nhd->rhn", self.factor(q.float()), self.factor(keys))
            scores = self.raw(scores) * scale
            hidden = torch.arange(start, start + len(keys)) >= seen[:, None, None]
            scores = scores.masked_fill(hidden, -torch.inf)
            new = torch.maximum(top, scores.amax(-1)) if self.maximum else top
            p = torch.exp(scores - new[..., None]).masked_fill(hidden, 0.0)
            p = torch.where(p < self.below, 0.0, p)
            old = torch.exp(top - new)
            total = total * old + p.sum(-1)
            added = self.kept(torch.einsum("rhn,nhd->rhd", p, values))
            acc = self.kept(acc * old[..., None] + added)
            top = new
        whole = torch.where(total > 0, 1 / total, 0.0)
        return (acc * whole[..., None]).to(q.dtype), top + torch.log(total)

    def prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        scale: float,
    ) -> Any:
        out, lse = torch.zeros_like(q), torch.zeros(q.shape[:2])
        edges = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
        for (q0, q1), (k0, k1) in edges:
            rows = slice(max(q0, q1 - ROWS), q1)
            seen = torch.arange(k1 - k0)[rows.start - q1 :] + 1
            out[rows], lse[rows] = self.rows(q[rows], k[k0:k1], v[k0:k1], seen, scale)
        return out, lse

    def decode(
        self, q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float
    ) -> Any:
        rows = [
            self.rows(q[b : b + 1], k_cache[b, :n], v_cache[b, :n], torch.tensor([n]), scale)
            for b, n in enumerate(kv_lens.tolist())
        ]
        return torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])

    def pair(self) -> Pair:
        return Pair.of(self.prefill, self.decode, "tiled:prefill", "tiled:decode")

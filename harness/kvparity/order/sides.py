"""One side of a pair, decode or prefill, seen as a function of the last row alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.order.encoding import split_log2
from kvparity.order.errors import NotATree
from kvparity.subjects.attention import AttentionSubject

Which = Literal["decode", "prefill"]
COLD = -400.0  # log2 of a weight that is zero beside any other


@dataclass(frozen=True)
class Answer:
    """``out`` ``[B, Hq, D]`` as float32 (exact) and ``lse`` ``[B, Hq]`` where it is returned."""

    out: Tensor
    lse: Tensor | None


class Side:
    """Calls one callable of a pair at one shape, which never changes, and counts the calls.

    Kernels choose their order from the shape, so every probe has the shape under test: ``batch``
    sequences of ``keys`` keys. Prefill is called with ``rows`` query rows for each sequence, all
    the same, and its last row is the answer; decode with a cache of just these keys.
    """

    def __init__(
        self, subject: AttentionSubject, which: Which, *, keys: int, batch: int, rows: int
    ) -> None:
        self.subject, self.which = subject, which
        self.keys, self.batch, self.rows = keys, batch, rows
        self.heads = subject.heads
        self.group = self.heads.query // self.heads.kv
        self.out, self.stored, self.device = subject.execution, subject.kv_cache, subject.device
        self.weights = split_log2(subject.scale, self.out, 1 if self.out == torch.float32 else 3)
        self.patterns = min(self.group, self.heads.dim // len(self.weights))
        self.calls = 0

    @property
    def name(self) -> str:
        """The name that the user gave the callable."""
        pair = self.subject.pair
        return pair.decode_name if self.which == "decode" else pair.prefill_name

    def run(self, q: Tensor, k: Tensor, v: Tensor) -> Answer:
        """The last row for q ``[B, Hq, D]`` and k, v ``[B, keys, Hkv, D]`` (any float, exact)."""
        subject, batch = self.subject, self.batch
        q = q.to(self.device, self.out)
        k, v = k.to(self.device, self.stored), v.to(self.device, self.stored)
        self.calls += 1
        if self.which == "decode":
            lens = torch.full((batch,), self.keys, dtype=torch.int32, device=self.device)
            rows = subject.call(subject.pair.decode, self.name, (q, k, v), kv_lens=lens)
        else:
            count = torch.arange(batch + 1, dtype=torch.int32, device=self.device)
            rows = subject.call(
                subject.pair.prefill,
                self.name,
                (q.repeat_interleave(self.rows, 0), k.flatten(0, 1), v.flatten(0, 1)),
                cu_seqlens_q=count * self.rows,
                cu_seqlens_k=count * self.keys,
            )[self.rows - 1 :: self.rows]
        width = self.heads.query * self.heads.dim
        out = rows[:, :width].view(batch, self.heads.query, self.heads.dim).cpu()
        return Answer(out, rows[:, width:].cpu() if rows.shape[1] > width else None)

    def values(self) -> Tensor:
        """Zeros for V, to be filled: ``[B, keys, Hkv, D]``."""
        return torch.zeros(self.batch, self.keys, self.heads.kv, self.heads.dim)

    def weighted(self, log2: Tensor) -> tuple[Tensor, Tensor]:
        """q and k that give key j the score ``log2[b, g, r, j] * ln 2``, to float32 precision.

        ``log2`` is ``[B, Hkv, patterns, keys]``: pattern r of key head g is seen by that group's
        query head r alone; with one pattern all heads see it. Keys of equal numbers get scores of
        equal bits, and 0 is exactly 0. Each pattern has key dimensions of its own, so there are
        ``patterns`` of them at most.
        """
        count, parts = log2.shape[2], len(self.weights)
        q = torch.zeros(self.batch, self.heads.kv, self.group, self.heads.dim)
        k = self.values()
        for r in range(count):
            own = slice(r * parts, (r + 1) * parts)
            heads = slice(None) if count == 1 else r
            q[:, :, heads, own] = torch.tensor(self.weights)
            k[..., own] = log2[:, :, r].transpose(1, 2)[..., None]
        return q.flatten(1, 2), k

    def alike(self, x: Tensor) -> Tensor:
        """``x[B, Hq, ...]``, the same for all query heads of a group, as ``[B, Hkv, ...]``.

        Raises:
            NotATree: the heads of a group differ, given the same queries, keys and values.
        """
        heads = x.view(self.batch, self.heads.kv, self.group, *x.shape[2:])
        first = heads[:, :, :1]
        if not torch.equal(heads.nan_to_num(7e37), first.nan_to_num(7e37).expand_as(heads)):
            raise NotATree(
                f"{self.which}: query heads of one group gave different results for the same "
                "queries, keys and values"
            )
        return first[:, :, 0]


def places(*sizes: int, turn: int) -> NDArray[np.int64]:
    """All index tuples of a box ``[count, len(sizes)]``, rotated by ``turn`` in each dimension.

    Turning moves a probe to another column, head and sequence, so that two answers agree only if
    these are reduced alike.
    """
    grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    turned: NDArray[np.int64] = (grid + turn) % np.array(sizes)
    return turned

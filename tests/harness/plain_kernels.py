"""The kernels that the kvparity attention calls, as plain loops in float64, and what to expect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mask_batches import Batch
from torch import Tensor

from kvparity.subjects.hf import attention as fixed
from kvparity.subjects.hf import mask as masks
from kvparity.subjects.hf.run_counts import Observation, observing
from kvparity_kernels.order import ReductionOrder

HEADS, KV_HEADS, DIM = 4, 2, 16
ORDER = ReductionOrder(split=32, tile=16, block_m=16)
SINKS = torch.tensor([0.5, -1.0, 2.0, 0.0])


class Kernels:
    """What the kernels promise, one row at a time; ``called`` keeps what they were given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[tuple[str, Any, dict[str, Any]]] = []
        monkeypatch.setattr(fixed, "attend_prefill", self.prefill)
        monkeypatch.setattr(fixed, "attend_decode", self.decode)

    def decode(self, q: Tensor, kv: Any, *, max_kv: int, **rules: Any) -> tuple[Tensor, None]:
        self.called.append(("decode", kv, rules | {"max_kv": max_kv}))
        rows = [(b, b, int(n) - 1) for b, n in enumerate(kv.kv_lens)]
        return self.rows(q, kv, rows, **rules), None

    def prefill(
        self, q: Tensor, kv: Any, *, q_starts: Tensor, q_lens: Tensor, max_q: int, **rules: Any
    ) -> tuple[Tensor, None]:
        self.called.append(("prefill", kv, rules | {"max_q": max_q}))
        assert q_starts.dtype == q_lens.dtype == torch.int32
        rows = [
            (b, start + t, keys - count + t)
            for b, (start, count, keys) in enumerate(
                zip(q_starts.tolist(), q_lens.tolist(), kv.kv_lens.tolist(), strict=True)
            )
            for t in range(min(count, max_q))
        ]
        return self.rows(q, kv, rows, **rules), None

    def rows(
        self,
        q: Tensor,
        kv: Any,
        rows: list[tuple[int, int, int]],
        *,
        scale: float,
        order: ReductionOrder,
        window: int,
        softcap: float,
        sinks: Tensor | None,
        first_key: Tensor | None,
    ) -> Tensor:
        assert order == ORDER
        out = torch.full(q.shape, float("nan"), dtype=torch.float64)
        for b, row, last in rows:
            first = 0 if first_key is None else int(first_key[row])
            first = max(first, last - window + 1) if window else first
            keys = range(first, last + 1)
            if kv.block_table is None:
                slots = [int(kv.starts[b]) + p for p in keys]
            else:
                slots = [int(kv.block_table[b, p // kv.page]) * kv.page + p % kv.page for p in keys]
            out[row] = plain(q[row], kv.k[slots], kv.v[slots], scale, softcap, sinks)
        return out


def plain(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float, sinks: Tensor | None
) -> Tensor:
    """One row ``[Hq, D]`` over keys and values ``[n, Hkv, D]``."""
    k, v = (x.double().repeat_interleave(len(q) // x.shape[1], dim=1) for x in (k, v))
    scores = torch.einsum("hd,nhd->hn", q.double(), k) * scale
    scores = softcap * torch.tanh(scores / softcap) if softcap else scores
    if sinks is not None:
        scores = torch.cat([scores, sinks.double()[:, None]], dim=1)
    return torch.einsum("hn,nhd->hd", scores.softmax(1)[:, : len(k)], v)


def masked(batch: Batch) -> Tensor:
    """The mask of ``batch`` as the model hands it on."""
    flags = batch.mask()
    setattr(flags, masks._NAME, batch.read(flags))
    return flags


def draw(batch: Batch, dim: int = DIM) -> list[Tensor]:
    """q, k, v ``[B, heads, tokens, dim]``; NaN in slots that hold no real key."""
    generator = torch.Generator().manual_seed(len(batch.rows[0]))
    count, sizes = len(batch.rows), (batch.queries, batch.keys, batch.keys)
    found = [
        torch.randn(count, heads, n, dim, generator=generator)
        for heads, n in zip((HEADS, KV_HEADS, KV_HEADS), sizes, strict=True)
    ]
    for row in range(count):
        for slot in range(batch.keys):
            if not batch.real(row, slot) and batch.said:
                found[1][row, :, slot] = found[2][row, :, slot] = float("nan")
    return found


def module(batch: Batch) -> Any:
    config = SimpleNamespace(attention_chunk_size=batch.chunk or None)
    return SimpleNamespace(is_causal=True, config=config)


def attend(batch: Batch, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
    more = {"sliding_window": batch.window or None, **more}
    with observing(Observation(order=ORDER)):
        out, weights = fixed.attention(module(batch), q, k, v, masked(batch), **more)
    assert weights is None
    return out


def dense(
    batch: Batch,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scaling: float | None = None,
    softcap: float = 0.0,
    s_aux: Tensor | None = None,
) -> Tensor:
    """Every row over the keys that its flags show, NaN for pads: ``[B, queries, heads, dim]``."""
    flags = batch.mask()
    out = torch.full_like(q.transpose(1, 2), float("nan"), dtype=torch.float64)
    for row in range(len(q)):
        for query in range(batch.queries):
            seen = flags[row, 0, query]
            if seen[batch.first + query]:
                keys = (x[row][:, seen].transpose(0, 1) for x in (k, v))
                scale = DIM**-0.5 if scaling is None else scaling
                out[row, query] = plain(q[row, :, query], *keys, scale, softcap, s_aux)
    return out


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)

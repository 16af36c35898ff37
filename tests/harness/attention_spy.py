"""Attention in float64, written anew in plain torch, that keeps how it was called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from planting import Told, ToldSession
from torch import Tensor

from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import (
    AttentionOps,
    DecodeCall,
    Outputs,
    PairDecodeCall,
    PairPrefillCall,
    PrefillCall,
)
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.model import DecoderModel, Ops
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder(split=64, tile=32, block_m=16)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slot(kv: KeysValues, sequence: int, position: int) -> int:
    """Where a key of a sequence lies."""
    if kv.block_table is not None:
        page = int(kv.block_table[sequence, position // kv.page])
        return page * kv.page + position % kv.page
    assert kv.starts is not None
    return int(kv.starts[sequence]) + (position % kv.ring if kv.ring else position)


def row(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """One row ``[Hq, D]`` over its keys ``[n, Hkv, D]``: out float32 ``[Hq, D]``, LSE ``[Hq]``."""
    group = q.shape[0] // k.shape[1]
    wide_k, wide_v = (x.double().repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("hd,nhd->hn", q.double(), wide_k) * scale
    out = torch.einsum("hn,nhd->hd", torch.softmax(scores, -1), wide_v)
    return out.float(), torch.logsumexp(scores, -1).float()


@dataclass
class Called:
    """One call: which kernel, rows and keys of each sequence, the slots that are read, the rest."""

    decode: bool
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    order: ReductionOrder
    slots: list[list[int]]
    kv: KeysValues
    more: dict[str, Any] = field(default_factory=dict)


class Spy:
    """Both kernels of a decoder."""

    def __init__(self) -> None:
        self.calls: list[Called] = []

    def ops(self) -> AttentionOps:
        return AttentionOps(prefill=self.prefill, decode=self.decode)

    def prefill(self, call: PrefillCall) -> Outputs:
        queries = tuple(call.q_lens.tolist())
        assert call.max_q == max(queries)
        return self._run(call, call.q_starts.tolist(), queries)

    def decode(self, call: DecodeCall) -> Outputs:
        assert call.max_kv >= int(call.kv.kv_lens.max())
        return self._run(call, list(range(len(call.q))), (1,) * len(call.q))

    def _run(
        self, call: PrefillCall | DecodeCall, starts: list[int], queries: tuple[int, ...]
    ) -> Outputs:
        q, kv, scale, window = call.q, call.kv, call.scale, call.window
        lens = kv.kv_lens.tolist()
        assert len(lens) == len(queries)
        places = [[slot(kv, b, p) for p in range(n)] for b, n in enumerate(lens)]
        more: dict[str, Any] = {"window": window, "softcap": call.softcap}
        more = {name: value for name, value in more.items() if value}
        tensors = {"sinks": call.sinks, "first_key": call.first_key}
        more |= {name: tensor for name, tensor in tensors.items() if tensor is not None}
        decode = isinstance(call, DecodeCall)
        self.calls.append(Called(decode, queries, tuple(lens), call.order, places, kv, more))
        out, lse = torch.full_like(q, torch.nan), torch.full(q.shape[:2], torch.nan)
        for b, (start, rows) in enumerate(zip(starts, queries, strict=True)):
            for t in range(rows):
                stop = lens[b] - rows + t + 1
                first = max(0, stop - window) if window else 0
                seen = places[b][first:stop]
                out[start + t], lse[start + t] = row(q[start + t], kv.k[seen], kv.v[seen], scale)
        return out, lse


def pair_call(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
    """A call of a pair: of decode where it has ``kv_lens``."""
    kind = PairDecodeCall if "kv_lens" in more else PairPrefillCall
    return kind(q=q, k=k, v=v, **{"scale": 0.25, **more})


class Bare(DecoderSubject):
    """A decoder without a model: what can be planted in is there, and its sessions are told."""

    def __init__(
        self, attention: AttentionOps, *, layers: int = 2, window: int | None = None,
        weights: Any = None, ops: Ops | None = None, table: Tensor | None = None,
    ) -> None:  # fmt: skip
        config: Any = SimpleNamespace(layers=layers, sliding_window=window)
        tables = torch.zeros(1, 1) if table is None else table
        self.model = DecoderModel(
            config, weights, tables, -tables, attention, ORDER, True, ops or Ops()
        )
        self.backends, self.ran = Backends(), Counter()
        self.vocab, self.max_positions, self.device = 10, 64, torch.device("cpu")
        self.told = Told()

    def session(self, members: Sequence[Member], layout: Layout) -> Any:
        return ToldSession(self.told)


@dataclass(frozen=True)
class Seen:
    """One call of a kernel of a pair."""

    kernel: str
    tensors: tuple[Tensor, ...]
    lens: tuple[list[int], ...]
    order: ReductionOrder | None
    more: dict[str, Any]


class PairSpy:
    """Both kernels of a pair, in the signature of ``kvparity.subjects.pair.subject``."""

    def __init__(self, lse: bool = True) -> None:
        self.calls: list[Seen] = []
        self.lse = lse

    def subject(self, order: ReductionOrder | None = ORDER, **more: Any) -> AttentionSubject:
        pair = Pair.of(self.prefill, self.decode, "m:p", "m:d")
        kind = torch.float32
        return AttentionSubject(
            pair, HeadCounts(4, 2, 8), 0.25, kind, kind, torch.device("cpu"), 0, order, **more
        )

    def prefill(
        self, q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
        order: ReductionOrder | None = None, **more: Any,
    ) -> Any:  # fmt: skip
        rows, keys = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        assert (rows[-1], keys[-1]) == (len(q), len(k))
        self.calls.append(Seen("prefill", (q, k, v), (rows, keys), order, more))
        found = []
        for b in range(len(rows) - 1):
            for at in range(rows[b], rows[b + 1]):
                stop = keys[b + 1] - (rows[b + 1] - at) + 1
                found.append(row(q[at], k[keys[b] : stop], v[keys[b] : stop], 0.25))
        return self._returned(found)

    def decode(
        self, q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor,
        order: ReductionOrder | None = None, **more: Any,
    ) -> Any:  # fmt: skip
        lens = kv_lens.tolist()
        assert len(q) == len(k) == len(v) == len(lens)
        self.calls.append(Seen("decode", (q, k, v), (lens,), order, more))
        return self._returned([row(q[b], k[b, :n], v[b, :n], 0.25) for b, n in enumerate(lens)])

    def _returned(self, found: list[tuple[Tensor, Tensor]]) -> Any:
        out = torch.stack([o for o, _ in found])
        return (out, torch.stack([each for _, each in found])) if self.lse else out

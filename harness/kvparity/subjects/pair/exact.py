"""Float64 rows of a pair of attention kernels, and pairs whose kernels are exact but for a fault.

Written for whatever the subject draws: only what it declares of scores is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import TypeVar

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import (
    HeadTerms,
    Outputs,
    PairDecodeCall,
    PairPrefillCall,
    StoredKV,
)
from kvparity.subjects.pair.model import Pair, PairModel
from kvparity_kernels.attention import naive
from kvparity_kernels.store import StoreFormat

M = TypeVar("M", bound=PairModel)
Rows = Callable[[PairModel, Tensor, Tensor, Tensor], Tensor]
"""(subject, q ``[Tq, Hq, D]``, k, v ``[Tk, Hkv, D]``) -> float64 ``[Tq, Hq * Dv + Hq]``, causal and
aligned at the end: O by head, then the LSE."""


def exact(
    subject: PairModel, q: Tensor, k: Tensor, v: Tensor, terms: HeadTerms | None = None
) -> Tensor:
    """The rows as the contract declares them; with other ``terms``, as these make them."""
    out, lse = naive.attend(
        q, k, v, scale=subject.scale, window=subject.window, softcap=subject.softcap,
        causal=subject.causal, window_size=subject.window_size, **vars(terms or subject.terms()),
    )  # fmt: skip
    return torch.cat([out.reshape(len(q), -1), lse.reshape(len(q), -1)], dim=1)


def rounded(subject: PairModel, rows: Tensor) -> Tensor:
    """Float64 rows as a kernel returns them at best: O in the execution dtype, LSE in float32."""
    width = subject.heads.out
    parts = rows[:, :width].to(subject.execution), rows[:, width:].float()
    return torch.cat([part.double() for part in parts], dim=1)


def in_format(subject: M, execution: str, kv_cache: str) -> M:
    """The same subject in another execution format, over another store."""
    store = StoreFormat.parse(kv_cache)
    return replace(
        subject,
        execution=getattr(torch, execution),
        kv_cache=store.storage_dtype,
        format=store if store.static or store.dynamic else None,
    )


def exact_pair(subject: PairModel, rows: Rows) -> Pair:
    """The subject's pair with kernels that compute ``rows`` in float64."""

    def found(call: PairPrefillCall | PairDecodeCall, q: Tensor, own: StoredKV) -> Tensor:
        coded = call.format is not None
        k, v = (subject.decoded(part, own) for part in "kv") if coded else (own.k, own.v)
        return rows(subject, q, k, v)

    def outputs(q: Tensor, parts: Sequence[Tensor]) -> Outputs:
        whole, width = torch.cat(list(parts)), subject.heads.out
        out = whole[:, :width].to(q.dtype).view(*q.shape[:2], subject.heads.values)
        return out, whole[:, width:].float()

    def prefill(call: PairPrefillCall) -> Outputs:
        given = call.stored
        ends_q, ends_k = call.cu_seqlens_q.tolist(), call.cu_seqlens_k.tolist()
        parts = []
        for b in range(len(ends_q) - 1):
            own, keys = slice(*ends_q[b : b + 2]), slice(*ends_k[b : b + 2])
            parts.append(found(call, call.q[own], given.each(itemgetter(keys))))
        return outputs(call.q, parts)

    def decode(call: PairDecodeCall) -> Outputs:
        plain = call.plain()
        given, parts = plain.stored, []
        for b, n in enumerate(plain.kv_lens.tolist()):
            one = given.each(itemgetter((b, slice(n))))
            parts.append(found(call, call.q[b : b + 1], one))
        return outputs(call.q, parts)

    return replace(subject.pair, prefill=prefill, decode=decode)

"""Float64 rows of a pair of attention kernels, and pairs whose kernels are exact but for a fault.

Written for whatever the subject draws: only its declared window, softcap and scale are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from kvparity.subjects.pair.cache import Given
from kvparity.subjects.pair.model import Pair, PairModel
from kvparity_kernels.attention import naive
from kvparity_kernels.store import StoreFormat

M = TypeVar("M", bound=PairModel)
Rows = Callable[[PairModel, Tensor, Tensor, Tensor], Tensor]
"""(subject, q ``[Tq, Hq, D]``, k, v ``[Tk, Hkv, D]``) -> float64 ``[Tq, Hq * D + Hq]``, causal and
aligned at the end: O by head, then the LSE."""


def exact(subject: PairModel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The rows as the contract declares them."""
    out, lse = naive.attend(
        q, k, v, scale=subject.scale, window=subject.window, softcap=subject.softcap
    )
    return torch.cat([out.reshape(len(q), -1), lse.reshape(len(q), -1)], dim=1)


def rounded(subject: PairModel, rows: Tensor) -> Tensor:
    """Float64 rows as a kernel returns them at best: O in the execution dtype, LSE in float32."""
    width = subject.heads.query * subject.heads.dim
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
    """Kernels with the signatures of the subject's pair that compute ``rows`` in float64."""

    def readable(k: Tensor, v: Tensor, more: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        if "format" not in more:
            return k, v
        given = Given(k, v, {name: scale for name, scale in more.items() if "scale" in name})
        return subject.decoded("k", given), subject.decoded("v", given)

    def parts(q: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        width = subject.heads.query * subject.heads.dim
        return found[:, :width].to(q.dtype).view(q.shape), found[:, width:].float()

    def prefill(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **more: Any
    ) -> tuple[Tensor, Tensor]:
        k, v = readable(k, v, more)
        ends_q, ends_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        found = []
        for b in range(len(ends_q) - 1):
            own, keys = slice(*ends_q[b : b + 2]), slice(*ends_k[b : b + 2])
            found.append(rows(subject, q[own], k[keys], v[keys]))
        return parts(q, torch.cat(found))

    def decode(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, **more: Any
    ) -> tuple[Tensor, Tensor]:
        found = []
        for b, n in enumerate(kv_lens.tolist()):
            one = {name: _row(value, b, n) for name, value in more.items()}
            k, v = readable(k_cache[b, :n], v_cache[b, :n], one)
            found.append(rows(subject, q[b : b + 1], k, v))
        return parts(q, torch.cat(found))

    return replace(subject.pair, prefill=prefill, decode=decode)


def _row(value: Any, row: int, keys: int) -> Any:
    """What belongs to the first keys of one row; a scale of no token is everybody's."""
    return value[row, :keys] if isinstance(value, Tensor) and value.dim() > 1 else value

"""Calls of attention kernels in which a defect is planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from attention_spy import ORDER, normal

from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

SMALL = replace(ORDER, tile=16)


def kv_of(*lens: int, ring: int = 0, heads: int = 2) -> KeysValues:
    """Sequences behind each other, from slot 1 on, with a slot between them."""
    starts, at = [], 1
    for n in lens:
        starts.append(at)
        at += n + 1
    k, v = normal(at, heads, 8, seed=1), normal(at, heads, 8, seed=2)
    return KeysValues(
        k, v, torch.tensor(lens).int(), starts=torch.tensor(starts, dtype=torch.int64), ring=ring
    )


def decoded(subject: Any, kv: KeysValues, own: ReductionOrder = ORDER, **more: Any) -> Any:
    q = normal(kv.batch, 4, 8)
    options = {"max_kv": int(kv.kv_lens.max()) + 2, "scale": 0.25, "order": own}
    return subject.attention.decode(DecodeCall(q=q, kv=kv, **options | more))


def prefilled(
    subject: Any, kv: KeysValues, lens: tuple[int, ...], own: ReductionOrder = ORDER, **more: Any
) -> Any:
    """Rows lie behind each other, with a row of nobody's in front."""
    starts = [1 + sum(lens[:b]) for b in range(len(lens))]
    call = PrefillCall(
        q=normal(1 + sum(lens), 4, 8), kv=kv, q_starts=torch.tensor(starts).int(),
        q_lens=torch.tensor(lens).int(), max_q=max(lens), scale=0.25, order=own, **more,
    )  # fmt: skip
    return subject.attention.prefill(call)

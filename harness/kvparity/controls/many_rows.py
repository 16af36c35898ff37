"""Defects of a call with several rows of a sequence at the end of a long cache.

Whichever function of a pair is given them: decode, where it takes many rows, or prefill.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.pair_calls import plant_in_pair
from kvparity.subjects.attention_calls import (
    PairCall,
    PairDecode,
    PairDecodeCall,
    PairPrefill,
    PairPrefillCall,
    with_keys,
)

STEP = 8
"""Rows of a sequence, at most, that are taken for a step of decoding."""


def _steps(call: PairPrefillCall) -> list[tuple[range, range, bool]]:
    """Rows and keys of each sequence, and whether it is a step behind keys of a cache."""
    ends_q, ends_k = call.cu_seqlens_q.tolist(), call.cu_seqlens_k.tolist()
    found = []
    for b in range(len(ends_q) - 1):
        rows, keys = range(*ends_q[b : b + 2]), range(*ends_k[b : b + 2])
        found.append((rows, keys, len(rows) <= STEP and len(rows) < len(keys)))
    return found


def _behind(call: PairDecodeCall | PairPrefillCall) -> Tensor:
    """int64 ``[rows]``: how many rows of its step come behind a row; 0 where it is of none."""
    if not isinstance(call, PairPrefillCall):
        return call.rows_behind()
    found = [(len(rows) - 1 - i) * step for rows, _, step in _steps(call) for i in range(len(rows))]
    return torch.tensor(found, dtype=torch.int64, device=call.q.device)


def _last_window(kernel: Callable[[PairCall], object]) -> Callable[[PairCall], object]:
    def planted(call: PairCall) -> object:
        behind: Tensor = _behind(call)
        found = kernel(call)
        parts = [x.clone() for x in (found if isinstance(found, tuple) else (found,))]
        for distance in sorted({*behind.tolist()} - {0}):
            # A window that begins with the last row's is as many keys shorter as rows come behind.
            other = kernel(replace(call, window=max(call.window - distance, 1)))
            others, own = other if isinstance(other, tuple) else (other,), behind == distance
            for part, wrong in zip(parts, others, strict=True):
                part[own] = wrong[own]
        return tuple(parts) if isinstance(found, tuple) else parts[0]

    return planted


def _whole_step(decode: PairDecode) -> PairDecode:
    def planted(call: PairDecodeCall) -> object:
        one = call.plain()
        return decode(replace(one, kv_lens=one.kv_lens + call.rows_behind().int()).like(call))

    return planted


def _whole_chunk(prefill: PairPrefill) -> PairPrefill:
    def planted(call: PairPrefillCall) -> object:
        lengths: list[tuple[int, int]] = []
        index: list[int] = []
        for rows, keys, step in _steps(call):  # a row of a step becomes a sequence of its own
            own = [(1, len(keys))] * len(rows) if step else [(len(rows), len(keys))]
            lengths += own
            index += [*keys] * len(own)
        place = torch.tensor(index, dtype=torch.int64, device=call.q.device)
        ends = torch.tensor([(0, 0), *lengths], device=call.q.device).cumsum(0).int()
        found = with_keys(call, lambda x: x[place])
        return prefill(replace(found, cu_seqlens_q=ends[:, 0], cu_seqlens_k=ends[:, 1]))

    return planted


window_of_last_row = plant_in_pair(prefill=_last_window, decode=_last_window)
"""The window of a step begins where that of its last row does."""

draft_sees_later = plant_in_pair(prefill=_whole_chunk, decode=_whole_step)
"""There is no mask among the rows of a step."""

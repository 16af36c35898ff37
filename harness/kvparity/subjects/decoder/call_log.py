"""This project's attention kernels as functions of calls, and what kernels were really given.

A planted defect wraps these functions; what it hands on is what they see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity_kernels import attention
from kvparity_kernels.stream import emit, listening


@contextmanager
def noting() -> Iterator[list[PrefillCall | DecodeCall]]:
    """Collect the calls inside that kernels were given."""
    calls: list[PrefillCall | DecodeCall] = []
    with listening(PrefillCall, calls.append), listening(DecodeCall, calls.append):
        yield calls


def attend_prefill(call: PrefillCall) -> Outputs:
    """``kvparity_kernels.attention.attend_prefill``."""
    emit(call)
    return attention.attend_prefill(
        call.q,
        call.kv,
        q_starts=call.q_starts,
        q_lens=call.q_lens,
        max_q=call.max_q,
        scale=call.scale,
        order=call.order,
        window=call.window,
        softcap=call.softcap,
        sinks=call.sinks,
        first_key=call.first_key,
    )


def attend_decode(call: DecodeCall) -> Outputs:
    """``kvparity_kernels.attention.attend_decode``."""
    emit(call)
    return attention.attend_decode(
        call.q,
        call.kv,
        max_kv=call.max_kv,
        scale=call.scale,
        order=call.order,
        window=call.window,
        softcap=call.softcap,
        sinks=call.sinks,
        first_key=call.first_key,
    )


FIXED_ORDER = AttentionOps(prefill=attend_prefill, decode=attend_decode)
"""Attention in this project's reduction order."""

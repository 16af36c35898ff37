"""This project's attention kernels as functions of calls, and what kernels were really given.

A planted defect wraps these functions; what it hands on is what they see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity_kernels import attention

_calls: ContextVar[list[PrefillCall | DecodeCall] | None] = ContextVar("calls", default=None)


@contextmanager
def noting() -> Iterator[list[PrefillCall | DecodeCall]]:
    """Collect the calls inside."""
    calls: list[PrefillCall | DecodeCall] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def attend_prefill(call: PrefillCall) -> Outputs:
    """``kvparity_kernels.attention.attend_prefill``."""
    note(call)
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
    note(call)
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


def note(call: PrefillCall | DecodeCall) -> None:
    """Tell of a call where it is computed."""
    calls = _calls.get()
    if calls is not None:
        calls.append(call)

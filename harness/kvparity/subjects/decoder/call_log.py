"""This project's attention kernels as functions of calls, and what kernels were really given.

A planted defect wraps these functions; what it hands on is what they see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs, PrefillCall
from kvparity_kernels import attention
from kvparity_kernels.stream import emit, listening


@contextmanager
def noting() -> Iterator[list[PrefillCall | DecodeCall]]:
    """Collect the calls inside that kernels were given."""
    calls: list[PrefillCall | DecodeCall] = []
    with listening(PrefillCall, calls.append), listening(DecodeCall, calls.append):
        yield calls


def _launch(kernel: Callable[..., Outputs], call: PrefillCall | DecodeCall) -> Outputs:
    """Kernels take what a call holds, under the same names."""
    emit(call)
    held = {each.name: getattr(call, each.name) for each in fields(call)}
    return kernel(held.pop("q"), held.pop("kv"), **held)


def attend_prefill(call: PrefillCall) -> Outputs:
    """``kvparity_kernels.attention.attend_prefill``."""
    return _launch(attention.attend_prefill, call)


def attend_decode(call: DecodeCall) -> Outputs:
    """``kvparity_kernels.attention.attend_decode``."""
    return _launch(attention.attend_decode, call)


FIXED_ORDER = AttentionOps(prefill=attend_prefill, decode=attend_decode)
"""Attention in this project's reduction order."""

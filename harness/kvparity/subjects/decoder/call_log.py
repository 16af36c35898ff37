"""The attention kernels, and what they were really given.

A planted defect wraps these functions; what it hands on is what they see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kvparity_kernels import attention
from kvparity_kernels.keys import KeysValues


@dataclass(frozen=True)
class Call:
    """One call of a kernel: queries, keys and values, and its keyword arguments."""

    q: Tensor
    kv: KeysValues
    options: Mapping[str, Any]


_calls: ContextVar[list[Call] | None] = ContextVar("calls", default=None)


@contextmanager
def noting() -> Iterator[list[Call]]:
    """Collect the calls inside."""
    calls: list[Call] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def attend_prefill(q: Tensor, kv: KeysValues, **options: Any) -> tuple[Tensor, Tensor]:
    """``kvparity_kernels.attention.attend_prefill``."""
    note(q, kv, options)
    return attention.attend_prefill(q, kv, **options)


def attend_decode(q: Tensor, kv: KeysValues, **options: Any) -> tuple[Tensor, Tensor]:
    """``kvparity_kernels.attention.attend_decode``."""
    note(q, kv, options)
    return attention.attend_decode(q, kv, **options)


def note(q: Tensor, kv: KeysValues, options: Mapping[str, Any]) -> None:
    """Tell of a call where it is computed."""
    calls = _calls.get()
    if calls is not None:
        calls.append(Call(q, kv, options))

"""Planting in the reference decoder: in the calls of its attention, or in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kvparity.controls.base import Plant
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import AttentionOps, SlotsCall
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.subject import DecoderSubject


class CallChange(Protocol):
    """Another call of attention in place of one, whatever its phase."""

    def __call__(self, call: SlotsCall) -> SlotsCall:
        """The call that is made instead."""
        ...


def decoder_of(subject: Subject) -> DecoderSubject:
    """The subject as the reference decoder.

    Raises:
        UnsupportedError: it is none.
    """
    if not isinstance(subject, DecoderSubject):
        raise UnsupportedError("this defect is planted in the reference decoder alone")
    return subject


def attention(change: Callable[[AttentionOps], AttentionOps], *, ordered: bool = False) -> Plant:
    """Plant: the decoder computes attention with what ``change`` makes of its kernels.

    ``ordered``: that needs attention in this project's order.
    """

    def plant(subject: Subject) -> Subject:
        decoder = decoder_of(subject)
        if ordered:
            decoder.require_order()
        return decoder.with_attention(change(decoder.attention))

    return plant


def changed_calls(change: CallChange, *, prefill: bool = True) -> Plant:
    """Plant: decode, and prefill if it says so, are called as ``change`` says."""

    def changed(ops: AttentionOps) -> AttentionOps:
        return AttentionOps(
            prefill=(lambda call: ops.prefill(change(call))) if prefill else ops.prefill,
            decode=lambda call: ops.decode(change(call)),
        )

    return attention(changed)

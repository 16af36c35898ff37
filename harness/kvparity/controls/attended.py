"""Defects of what attention is made to look at: another layer's cache, or nothing in particular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvparity.controls.base import PlantedSubject, Watched
from kvparity.controls.reference import changed_calls, decoder_of
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import (
    AttentionOps,
    DecodeCall,
    Outputs,
    PrefillCall,
    SlotsCall,
)
from kvparity.subjects.base import Session, Subject
from kvparity_kernels.keys import KeysValues


class _First:
    """Hands every call of a step the keys and values of the first call of its kind."""

    def __init__(self, ops: AttentionOps) -> None:
        self.ops = ops
        self.kept: dict[str, KeysValues] = {}

    def prefill(self, call: PrefillCall) -> Outputs:
        return self.ops.prefill(replace(call, kv=self.kept.setdefault("prefill", call.kv)))

    def decode(self, call: DecodeCall) -> Outputs:
        return self.ops.decode(replace(call, kv=self.kept.setdefault("decode", call.kv)))


def wrong_donor(subject: Subject) -> Subject:
    """All layers of a step read the cache of the first one.

    Prefill and decode agree. In the report layers that share a cache attend to other keys and
    values than their owner's: ml-explore/mlx-lm#1674.
    """
    decoder = decoder_of(subject)
    if decoder.model.config.layers < 2:
        raise UnsupportedError("this defect needs a decoder with at least two layers")
    first = _First(decoder.attention)
    planted = decoder.with_attention(AttentionOps(prefill=first.prefill, decode=first.decode))

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        return Watched(inner.session(members, layout), lambda step: first.kept.clear())

    return PlantedSubject(planted, open_session)


def _unscaled(call: SlotsCall) -> SlotsCall:
    return replace(call, scale=0.0)


uniform_attention = changed_calls(_unscaled)
"""The scale of the scores is lost: every key weighs the same, in prefill and in decode.

In the report the factor is another one, not none: NVIDIA/Megatron-LM#848.
"""

"""Defects of what attention is made to look at: another layer's cache, or nothing in particular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvparity.controls.base import PlantedSubject, Watched
from kvparity.controls.reference import changed_calls, decoder_of
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import SlotsCall
from kvparity.subjects.base import Session, Subject
from kvparity_kernels.keys import KeysValues


def wrong_donor(subject: Subject) -> Subject:
    """All layers of a step read the cache of the first one.

    Prefill and decode agree. In the report layers that share a cache attend to other keys and
    values than their owner's: ml-explore/mlx-lm#1674.
    """
    decoder = decoder_of(subject)
    if decoder.model.config.layers < 2:
        raise UnsupportedError("this defect needs a decoder with at least two layers")
    kept: dict[type, KeysValues] = {}

    def first(call: SlotsCall) -> SlotsCall:
        """The call with the keys and values of the first one of its kind in a step."""
        return replace(call, kv=kept.setdefault(type(call), call.kv))

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        return Watched(inner.session(members, layout), lambda step: kept.clear())

    return PlantedSubject(changed_calls(first)(decoder), open_session)


def _unscaled(call: SlotsCall) -> SlotsCall:
    return replace(call, scale=0.0)


uniform_attention = changed_calls(_unscaled)
"""The scale of the scores is lost: every key weighs the same, in prefill and in decode.

In the report the factor is another one, not none: NVIDIA/Megatron-LM#848.
"""

"""Defects of stores: what is read of codes and scales is not what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant, PlantedSession, PlantedSubject
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import AttentionOps, Outputs, SlotsCall
from kvparity.subjects.base import Session, Subject
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import decode


def _reading(
    attend: Callable[[SlotsCall], Outputs], change: Callable[[KeysValues, Tensor], KeysValues]
) -> Callable[[SlotsCall], Outputs]:
    """``attend`` on a cache that is read otherwise."""
    return lambda call: attend(replace(call, kv=change(call.kv, call.q)))


def _attending(change: Callable[[AttentionOps], AttentionOps]) -> Plant:
    def plant(subject: Subject) -> Subject:
        if not isinstance(subject, DecoderSubject):
            raise UnsupportedError("this defect needs a decoder of ours that stores codes")
        return subject.with_attention(change(subject.attention))

    return plant


def _unscaled(kv: KeysValues, q: Tensor) -> KeysValues:
    if kv.format is None or not kv.format.static:
        raise UnsupportedError("this defect needs a store with static scales, such as fp8_e4m3")
    return replace(kv, k_scale=None, v_scale=None)


scale_ignored_in_prefill = _attending(
    lambda ops: AttentionOps(prefill=_reading(ops.prefill, _unscaled), decode=ops.decode)
)
"""One of two wrappers forgets the scales of keys and values: flashinfer-ai/flashinfer#4979."""


def _rounded(kv: KeysValues, q: Tensor) -> KeysValues:
    if kv.format is None:
        raise UnsupportedError("this defect needs a store of codes with scales")
    ones = torch.ones(kv.k.shape[1], device=kv.k.device)

    def read(codes: Tensor, scale: Tensor | None) -> Tensor:
        assert kv.format is not None  # asked above
        wide = decode(codes, ones if scale is None else scale, kv.format, torch.float32)
        return wide.bfloat16().to(q.dtype).contiguous()

    return replace(
        kv,
        k=read(kv.k, kv.k_scale),
        v=read(kv.v, kv.v_scale),
        format=None,
        k_scale=None,
        v_scale=None,
    )


dequant_rounds = _attending(
    lambda ops: AttentionOps(
        prefill=_reading(ops.prefill, _rounded), decode=_reading(ops.decode, _rounded)
    )
)
"""Both kernels round code * scale to bfloat16, whatever they compute in: vllm-project/vllm#51685.
"""


class _FirstScale(PlantedSession):
    """Static scales are set so that the first input of the session just fits."""

    def __init__(self, inner: Session, cache: KVCache) -> None:
        super().__init__(inner)
        self.store = cache.store
        self.cached = cache
        self.known: set[int] = set()
        cache.store = self._store  # type: ignore[method-assign] # the defect sits in the writer

    def _store(self, layer: int, slots: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        if layer not in self.known:
            self.known.add(layer)
            for stored, fresh in ((self.cached.k[layer], k), (self.cached.v[layer], v)):
                most = torch.finfo(stored.codes.dtype).max
                stored.static = fresh.float().abs().amax().div(most).expand(fresh.shape[1]).clone()
        self.store(layer, slots, k, v)


def scale_from_first_input(subject: Subject) -> Subject:
    """The scale of a layer is fixed by whatever real input comes first: vllm-project/vllm#11906."""

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        session = inner.session(members, layout)
        cache = session.cache()
        if not isinstance(cache, KVCache) or not cache.k[0].format.static:
            raise UnsupportedError("this defect needs a store with static scales, such as fp8_e4m3")
        return _FirstScale(session, cache)

    return PlantedSubject(subject, open_session)

"""Defects of stores: what is read of codes and scales is not what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject
from kvparity.controls.reference import attention, changed_calls
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.attention_calls import PrefillCall, SlotsCall
from kvparity.subjects.base import Session, Subject
from kvparity.subjects.decoder.cache import KVCache
from kvparity_kernels.store import decode


def _unscaled(call: PrefillCall) -> PrefillCall:
    if call.kv.format is None or not call.kv.format.static:
        raise UnsupportedError("this defect needs a store with static scales, such as fp8_e4m3")
    return replace(call, kv=replace(call.kv, k_scale=None, v_scale=None))


scale_ignored_in_prefill = attention(
    lambda ops: replace(ops, prefill=lambda call: ops.prefill(_unscaled(call)))
)
"""One of two wrappers forgets the scales of keys and values: flashinfer-ai/flashinfer#4979."""


def _rounded(call: SlotsCall) -> SlotsCall:
    kv, dtype = call.kv, call.q.dtype
    if kv.format is None:
        raise UnsupportedError("this defect needs a store of codes with scales")
    ones = torch.ones(kv.k.shape[1], device=kv.k.device)

    def read(codes: Tensor, scale: Tensor | None) -> Tensor:
        assert kv.format is not None  # asked above
        wide = decode(codes, ones if scale is None else scale, kv.format, torch.float32)
        return wide.bfloat16().to(dtype).contiguous()

    wide = replace(
        kv,
        k=read(kv.k, kv.k_scale),
        v=read(kv.v, kv.v_scale),
        format=None,
        k_scale=None,
        v_scale=None,
    )
    return replace(call, kv=wide)


dequant_rounds = changed_calls(_rounded)
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

"""The attention of a subject as pairs that can be probed: one for each kind of layer."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import (
    DecodeCall,
    Outputs,
    PairDecodeCall,
    PairPrefillCall,
    PrefillCall,
)
from kvparity.subjects.base import Subject
from kvparity.subjects.decoder.backends.table import FIXED
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.attention.caches import packed, rectangle

Result = Tensor | Outputs


def attentions_of(subject: Subject) -> dict[str, AttentionSubject]:
    """A kernel pair itself, or the pairs that a decoder's layers call, by the kind of layer.

    They have the decoder's heads, formats, softcap, sinks and order, and its window where layers
    slide; there decode reads a ring if the decoder keeps one. The only kind has no name.

    Raises:
        UnsupportedError: the subject has no attention that can be called alone.
    """
    if isinstance(subject, AttentionSubject):
        return {"": subject}
    if not isinstance(subject, DecoderSubject):
        raise UnsupportedError("the attention of this subject cannot be called alone")
    config = subject.model.config
    kinds = sorted(set(config.types), key=config.types.index)
    windows = {kind: config.sliding_window if kind == "sliding" else 0 for kind in kinds}
    if len(kinds) == 1:
        return {"": _pair_of(subject, windows[kinds[0]])}
    return {f"{kind} layers": _pair_of(subject, window) for kind, window in windows.items()}


def _pair_of(subject: DecoderSubject, window: int) -> AttentionSubject:
    model, ops, storage = subject.model, subject.attention, subject.storage
    ring = window if storage.ring else 0

    def prefill(call: PairPrefillCall) -> Result:
        kv, starts, lens, longest = packed(
            call.q, call.k, call.v, call.cu_seqlens_q, call.cu_seqlens_k,
            format=call.format, k_scale=call.k_scale, v_scale=call.v_scale,
        )  # fmt: skip
        own = PrefillCall(
            q=call.q, kv=kv, q_starts=starts, q_lens=lens, max_q=longest, scale=call.scale,
            order=call.order or model.order, window=call.window, softcap=call.softcap,
            sinks=call.sinks,
        )  # fmt: skip
        return given(ops.prefill(own))

    def decode(call: PairDecodeCall) -> Result:
        kv = rectangle(
            _rolled(call.k, ring), _rolled(call.v, ring), call.kv_lens, ring=ring,
            format=call.format, k_scale=_rolled_scale(call.k_scale, ring),
            v_scale=_rolled_scale(call.v_scale, ring),
        )  # fmt: skip
        own = DecodeCall(
            q=call.q, kv=kv, max_kv=call.k.shape[1], scale=call.scale,
            order=call.order or model.order, window=call.window, softcap=call.softcap,
            sinks=call.sinks,
        )  # fmt: skip
        return given(ops.decode(own))

    config = model.config
    coded = storage.format.static or storage.format.dynamic
    return AttentionSubject(
        pair=Pair(prefill, decode, "the decoder's prefill", "the decoder's decode"),
        heads=HeadCounts(config.heads, config.kv_heads, config.head_dim),
        scale=config.scale,
        execution=model.weights.embed.dtype,
        kv_cache=subject.kv_cache,
        device=subject.device,
        seed=subject.seed,
        order=model.order if subject.backends.attention == FIXED else None,
        format=storage.format if coded else None,
        window=window,
        softcap=config.attention_softcap,
        sinks=config.attention_sinks,
    )


def _rolled(x: Tensor, ring: int) -> Tensor:
    """The last keys of ``[B, keys, ...]`` in a ring: key p lies in slot ``p % ring`` (0: as is)."""
    if not ring:
        return x
    keys = x.shape[1]
    slots = torch.arange(ring, device=x.device)
    last = keys - 1 - (keys - 1 - slots) % ring
    return x[:, last.clamp(min=0)]


def _rolled_scale(scale: Tensor | None, ring: int) -> Tensor | None:
    """The same of scales that lie beside their keys; those of heads belong to no slot."""
    return scale if scale is None or scale.dim() == 1 else _rolled(scale, ring)


def given(result: Outputs) -> Result:
    """The result without an LSE that is none."""
    out, lse = result
    return (out, lse) if lse.shape[1] else out

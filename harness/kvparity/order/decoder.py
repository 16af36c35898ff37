"""The attention of a subject as a pair that can be probed."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kvparity.decoder.backends.table import FIXED
from kvparity.subject import Subject, UnsupportedError
from kvparity.subjects.attention import AttentionSubject, Heads, Pair
from kvparity.subjects.decoder import DecoderSubject
from kvparity_kernels.attention.caches import packed, rectangle

Result = Tensor | tuple[Tensor, Tensor]


def attention_of(subject: Subject) -> AttentionSubject:
    """A kernel pair itself, or the pair that a decoder calls, with its heads, dtypes and order.

    Raises:
        UnsupportedError: the subject has no attention that can be called alone, or one that would
            not show a probe as it is: with windows, a softcap, sinks, or a cache of codes.
    """
    if isinstance(subject, AttentionSubject):
        return subject
    if not isinstance(subject, DecoderSubject):
        raise UnsupportedError("the attention of this subject cannot be called alone")
    model, ops = subject.model, subject.attention
    shape, format = model.config, subject.storage.format
    hidden = {
        "a sliding window": shape.sliding_window,
        "a softcap": shape.attention_softcap,
        "sinks": shape.attention_sinks,
        f"a cache in {format}": format.static or format.dynamic,
    }
    for what, present in hidden.items():
        if present:
            raise UnsupportedError(
                f"the decoder has {what}, behind which a probe is not seen as it is; its order can "
                "be certified without"
            )

    def prefill(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, **more: Any
    ) -> Result:
        more.setdefault("order", model.order)
        kv, starts, lens, longest = packed(q, k, v, cu_seqlens_q, cu_seqlens_k)
        return given(ops.prefill(q, kv, q_starts=starts, q_lens=lens, max_q=longest, **more))

    def decode(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, **more: Any) -> Result:
        more.setdefault("order", model.order)
        return given(ops.decode(q, rectangle(k, v, kv_lens), max_kv=k.shape[1], **more))

    config = model.config
    return AttentionSubject(
        pair=Pair(prefill, decode, "the decoder's prefill", "the decoder's decode"),
        heads=Heads(config.heads, config.kv_heads, config.head_dim),
        scale=config.scale,
        execution=model.weights.embed.dtype,
        kv_cache=subject.kv_cache,
        device=subject.device,
        seed=subject.seed,
        order=model.order if subject.backends.attention == FIXED else None,
    )


def given(result: tuple[Tensor, Tensor]) -> Result:
    """The result without an LSE that is none."""
    out, lse = result
    return (out, lse) if lse.shape[1] else out

"""SGLang: ``extend_attention_fwd_unified`` and ``decode_attention_fwd`` of its Triton backend.

As ``sglang/kernels/ops/attention`` has them, keys by slot. Decode is given ``SPLITS`` splits of
every sequence, the server's default under static splits, and under a window its keys alone, as the
backend does it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, ask
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures.packed import longest, slots_of

SPLITS = 8


def prefill(kernel: Kernel, page: int, call: PairPrefillCall, out: Tensor | None = None) -> object:
    """Rows behind a prefix, in one pass over the keys of both."""
    lens, rows = call.cu_seqlens_k.diff(), call.cu_seqlens_q.diff()
    return ask(
        kernel, call.q, o=out, k_buffer=call.k, v_buffer=call.v, k_scale=1.0, v_scale=1.0,
        qo_indptr=call.cu_seqlens_q, kv_indptr=call.cu_seqlens_k,
        kv_indices=torch.arange(len(call.k), device=call.q.device),
        prefix_lens=(lens - rows).to(torch.int32), max_len_extend=longest(call.cu_seqlens_q),
        sm_scale=call.scale, is_causal=call.causal,
        **({"sliding_window_size": call.window - 1} if call.window else {}),
        **_terms(call),
    )  # fmt: skip


def decode(kernel: Kernel, page: int, call: PairDecodeCall, out: Tensor | None = None) -> object:
    """One row of each sequence, in splits that the call itself makes room for."""
    k, v, indptr, indices = slots_of(call)
    room = call.q.new_empty((*call.q.shape[:2], SPLITS, v.shape[-1] + 1), dtype=torch.float32)
    return ask(
        kernel, call.q, k_buffer=k, v_buffer=v, o=out, kv_indptr=indptr, kv_indices=indices,
        attn_logits=room[..., :-1].contiguous(), attn_lse=room[..., -1].contiguous(),
        num_kv_splits=torch.full_like(call.kv_lens, SPLITS), max_kv_splits=SPLITS,
        sm_scale=call.scale, k_scale=1.0, v_scale=1.0, **_terms(call),
    )  # fmt: skip


def _terms(call: PairPrefillCall | PairDecodeCall) -> dict[str, object]:
    found: dict[str, object] = {"logit_cap": call.softcap} if call.softcap else {}
    return found if call.sinks is None else {**found, "sinks": call.sinks}

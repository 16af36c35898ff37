"""vLLM: ``unified_attention`` of its Triton backend, for prefill and decode alike.

As ``vllm/v1/attention/ops/triton_unified_attention.py`` has it: rows of any number of each
sequence, keys in pages, ``out`` to write to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, ask
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures.packed import PagedKeys, longest, sides


def prefill(kernel: Kernel, page: int, call: PairPrefillCall, out: Tensor | None = None) -> object:
    """Rows behind keys that were cached before them."""
    return _called(kernel, call, PagedKeys.packed(call, page), call.cu_seqlens_q, out)


def decode(kernel: Kernel, page: int, call: PairDecodeCall, out: Tensor | None = None) -> object:
    """One row of each sequence, or as many as the call says."""
    ends = call.cu_seqlens_q
    if ends is None:
        ends = torch.arange(len(call.q) + 1, dtype=torch.int32, device=call.q.device)
    return _called(kernel, call, PagedKeys.of(call), ends, out)


def _called(
    kernel: Kernel, call: PairPrefillCall | PairDecodeCall, keys: PagedKeys, ends: Tensor,
    out: Tensor | None,
) -> object:  # fmt: skip
    more = {"alibi_slopes": call.alibi_slopes, "sinks": call.sinks}
    return ask(
        kernel, call.q, keys.k, keys.v, out=out,
        cu_seqlens_q=ends, max_seqlen_q=longest(ends),
        seqused_k=keys.lens, max_seqlen_k=int(keys.lens.max()),
        softmax_scale=call.scale, causal=call.causal,
        window_size=sides(call),
        block_table=keys.table, softcap=call.softcap,
        q_descale=None, k_descale=None, v_descale=None,
        **{name: each for name, each in more.items() if each is not None},
    )  # fmt: skip

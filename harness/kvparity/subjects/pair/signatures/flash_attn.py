"""flash-attention 2: ``flash_attn_varlen_func`` and ``flash_attn_with_kvcache``.

As its ``flash_attn_interface.py`` documents them. Both may also return the LSE, heads first.
"""

from __future__ import annotations

from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, ask
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.signatures.packed import longest, sides


def prefill(kernel: Kernel, page: int, call: PairPrefillCall, out: Tensor | None = None) -> object:
    """Packed rows and keys."""
    found = ask(
        kernel, call.q, call.k, call.v,
        cu_seqlens_q=call.cu_seqlens_q, cu_seqlens_k=call.cu_seqlens_k,
        max_seqlen_q=longest(call.cu_seqlens_q), max_seqlen_k=longest(call.cu_seqlens_k),
        **_rules(call),
    )  # fmt: skip
    match found:
        case (rows, Tensor() as lse, *_):
            return rows, lse.transpose(0, 1)
    return found


def decode(kernel: Kernel, page: int, call: PairDecodeCall, out: Tensor | None = None) -> object:
    """One row of each sequence, over caches or pages."""
    pages = {} if call.block_table is None else {"block_table": call.block_table}
    found = ask(
        kernel, call.q[:, None], call.k, call.v, cache_seqlens=call.kv_lens, **pages, **_rules(call)
    )
    match found:
        case Tensor():
            return found.squeeze(1)
        case (Tensor() as rows, Tensor() as lse, *_):
            return rows.squeeze(1), lse.squeeze(2)
    return found


def _rules(call: PairPrefillCall | PairDecodeCall) -> dict[str, object]:
    """What both take of a contract."""
    found: dict[str, object] = {"softmax_scale": call.scale, "causal": call.causal}
    if (found_sides := sides(call)) != (-1, -1):
        found["window_size"] = found_sides
    if call.softcap:
        found["softcap"] = call.softcap
    if call.alibi_slopes is not None:
        found["alibi_slopes"] = call.alibi_slopes
    return found

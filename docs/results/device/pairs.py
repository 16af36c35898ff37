"""Pairs of attention functions whose bits are a question for a GPU: see ../README.md."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.order import ReductionOrder


def prefill_of_64(q, k, v, **more):
    """This project's prefill, 64 query rows a program."""
    return prefill(q, k, v, order=ReductionOrder(block_m=64), **more)


def decode_of_16(q, k_cache, v_cache, **more):
    """This project's decode, 16 query rows a program: all that one query's heads can fill."""
    return decode(q, k_cache, v_cache, order=ReductionOrder(block_m=16), **more)


def sdpa_prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    """PyTorch's attention, a sequence at a time. It gives no LSE."""
    parts = []
    spans = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
    for (q0, q1), (k0, k1) in spans:
        square = q1 - q0 == k1 - k0  # else is_causal would align the mask at the start
        out = scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (q[q0:q1], k[k0:k1], v[k0:k1])),
            attn_mask=None if square else causal_lower_right(q1 - q0, k1 - k0),
            is_causal=square,
            scale=scale,
            enable_gqa=True,
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def sdpa_decode(q, k_cache, v_cache, *, kv_lens, scale):
    """PyTorch's attention, one query of a sequence at a time."""
    rows = [
        scaled_dot_product_attention(
            q[b][None, :, None],
            *(x[b, :n].transpose(0, 1)[None] for x in (k_cache, v_cache)),
            scale=scale,
            enable_gqa=True,
        )[0, :, 0]
        for b, n in enumerate(kv_lens.tolist())
    ]
    return torch.stack(rows)


def flashinfer_prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    """FlashInfer's prefill of one request, a sequence at a time."""
    import flashinfer  # optional: pip install 'kvparity[flashinfer]'

    spans = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
    parts = [
        flashinfer.single_prefill_with_kv_cache(
            q[q0:q1], k[k0:k1], v[k0:k1], causal=True, sm_scale=scale, return_lse=True
        )
        for (q0, q1), (k0, k1) in spans
    ]
    # Its LSE is to base 2. One multiplication on both sides: equal bits stay equal.
    return torch.cat([out for out, _ in parts]), torch.cat([s for _, s in parts]) * math.log(2)


def flashinfer_decode(q, k_cache, v_cache, *, kv_lens, scale):
    """FlashInfer's decode of one request, a sequence at a time."""
    import flashinfer

    parts = [
        flashinfer.single_decode_with_kv_cache(
            q[b], k_cache[b, :n], v_cache[b, :n], sm_scale=scale, return_lse=True
        )
        for b, n in enumerate(kv_lens.tolist())
    ]
    return torch.stack([out for out, _ in parts]), torch.stack([s for _, s in parts]) * math.log(2)

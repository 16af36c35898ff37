"""Softmax attention of flash-linear-attention: parallel over a prompt, and one step of decode."""

import torch
from fla.ops.attn.decoding import attn_decoding_one_step, naive_attn_decoding_kernel
from fla.ops.attn.parallel import parallel_attn
from torch import Tensor

# Without a GPU no configuration can be timed: the first one is taken.
naive_attn_decoding_kernel.fn.configs = naive_attn_decoding_kernel.fn.configs[:1]


def prefill(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, scale: float
) -> Tensor:
    """Whole prompts: it has no cached prefix."""
    q, k, v = (x[None].contiguous() for x in (q, k, v))
    found: Tensor = parallel_attn(q, k, v, scale=scale, cu_seqlens=cu_seqlens_k.long())
    return found[0]


def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, *, kv_lens: Tensor, scale: float) -> Tensor:
    """One row of each sequence, whose keys it takes packed."""
    lens = kv_lens.tolist()
    k, v = (torch.cat([x[b, :n] for b, n in enumerate(lens)])[None] for x in (k_cache, v_cache))
    ends = torch.tensor([0, *lens]).cumsum(0)
    found: Tensor = attn_decoding_one_step(q[None].contiguous(), k, v, scale=scale, cu_seqlens=ends)
    return found[0]

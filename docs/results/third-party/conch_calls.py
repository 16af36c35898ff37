"""Conch's two attention functions as vLLM's unified_attention is called, and its copy of that."""

from typing import Any

from conch.ops.attention.paged_attention import paged_attention
from conch.ops.attention.varlen_attention import varlen_attention
from conch.third_party.vllm.unified_attention import unified_attention
from torch import Tensor


def varlen(
    q: Tensor, k: Tensor, v: Tensor, *, out: Tensor, cu_seqlens_q: Tensor, max_seqlen_q: int,
    seqused_k: Tensor, max_seqlen_k: int, softmax_scale: float, causal: bool, block_table: Tensor,
    **_: Any,
) -> None:  # fmt: skip
    """Rows of any number of each sequence."""
    varlen_attention(
        q, k, v, cu_seqlens_q, max_seqlen_q, seqused_k, max_seqlen_k, block_table, out, causal,
        softmax_scale,
    )  # fmt: skip


def paged(
    q: Tensor, k: Tensor, v: Tensor, *, out: Tensor, seqused_k: Tensor, softmax_scale: float,
    block_table: Tensor, **_: Any,
) -> None:  # fmt: skip
    """One row of each sequence, its keys in splits."""
    paged_attention(q, k, v, block_table, seqused_k, out, softmax_scale)


def unified_over_numbers(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> None:
    """As an engine whose cache never holds a NaN."""
    unified_attention(q, k.nan_to_num(), v.nan_to_num(), **more)

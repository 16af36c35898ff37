"""A paged Triton attention as public projects write it: plain ``@triton.jit``, launched by itself.

Written anew from what such kernels document. ``ALIGNED`` at the start is how one of them masks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from kvparity_kernels import launch as _settled  # noqa: F401 - as in any run: before Triton

# isort: split
import triton
import triton.language as tl


@triton.jit
def rows_over_pages(
    OUT, Q, K, V, TABLE, ENDS, LENS, scale, heads, group, most, rows, stride_out, stride_q,
    PAGE: tl.constexpr, DIM: tl.constexpr, SEQUENCES: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    b = 0
    for i in range(SEQUENCES - 1):
        b += (row >= tl.load(ENDS + i + 1)).to(tl.int32)
    length = tl.load(LENS + b)
    own = row - tl.load(ENDS + b)
    if ALIGNED == "end":
        own += length - (tl.load(ENDS + b + 1) - tl.load(ENDS + b))
    d, slot = tl.arange(0, DIM), tl.arange(0, PAGE)
    q = tl.load(Q + row * stride_q + head * DIM + d) * scale  # in the dtype of q
    top, total, out = -float("inf"), 0.0, tl.zeros([DIM], tl.float32)
    for page in range(tl.cdiv(length, PAGE)):
        key = page * PAGE + slot
        seen = (key <= own) & (key < length)
        at = tl.load(TABLE + b * most + page) * PAGE + slot
        at = (at[:, None] * (heads // group) + head // group) * DIM + d[None, :]
        k = tl.load(K + at, mask=seen[:, None], other=0.0).to(tl.float32)
        v = tl.load(V + at, mask=seen[:, None], other=0.0).to(tl.float32)
        scores = tl.where(seen, tl.sum(k * q[None, :].to(tl.float32), 1), -1e30)
        new = tl.maximum(top, tl.max(scores, 0))
        weights = tl.where(seen, tl.exp(scores - new), 0.0)
        old = tl.exp(top - new)
        total = total * old + tl.sum(weights, 0)
        out = out * old + tl.sum(weights[:, None] * v, 0)
        top = new
    out = out / tl.where(total > 0, total, 1.0)
    tl.store(OUT + row * stride_out + head * DIM + d, out.to(OUT.dtype.element_ty))


def attention(
    aligned: str, q: Tensor, k: Tensor, v: Tensor, *, out: Tensor, cu_seqlens_q: Tensor,
    seqused_k: Tensor, softmax_scale: float, block_table: Tensor, **_: Any,
) -> None:  # fmt: skip
    """As ``unified_attention`` is called. ``aligned``: the causal mask, at the end or the start."""
    heads, dim = q.shape[1:]
    group, sequences = heads // k.shape[2], len(seqused_k)
    assert k.is_contiguous() == v.is_contiguous() is True
    rows_over_pages[(len(q), heads)](
        out, q, k, v, block_table, cu_seqlens_q, seqused_k, softmax_scale, heads, group,
        block_table.stride(0), len(q), out.stride(0), q.stride(0),
        PAGE=k.shape[1], DIM=dim, SEQUENCES=sequences, ALIGNED=aligned,
    )  # fmt: skip


at_the_end = partial(attention, "end")
at_the_start = partial(attention, "start")

"""Functions with the signatures of other projects, in plain torch: right ones, and flawed ones.

Each is written from what the project documents, and hands rows to the plain pair.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import semantic_pairs
import torch
from semantic_pairs import Both
from torch import Tensor


def _packed(q: Tensor, keys: list[Tensor], values: list[Tensor], ends: Tensor, **more: Any) -> Both:
    """Rows ``[n, Hq, D]`` of sequences whose keys are given one by one."""
    stops = torch.tensor([0, *map(len, keys)]).cumsum(0)
    return semantic_pairs.prefill(
        q, torch.cat(keys), torch.cat(values), cu_seqlens_q=ends, cu_seqlens_k=stops, **more
    )


def _of_pages(cache: Tensor, table: Tensor, lens: Tensor) -> list[Tensor]:
    """The keys of each sequence."""
    found = [cache[row.long()].flatten(0, 1) for row in table]
    return [x[:n] for x, n in zip(found, lens.tolist(), strict=True)]


def in_order(table: Tensor, cache: Tensor) -> Tensor:
    """As if each page lay behind the one before it."""
    return (table[:, :1] + torch.arange(table.shape[1])) % len(cache)


# flash-attention


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
    max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None,
    causal: bool = False, window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0,
    alibi_slopes: Tensor | None = None, deterministic: bool = False,
    return_attn_probs: bool = False, block_table: Tensor | None = None,
) -> Tensor:  # fmt: skip
    assert max_seqlen_q == int(cu_seqlens_q.diff().max())
    assert max_seqlen_k == int(cu_seqlens_k.diff().max())
    sides = {"window": window_size[0] + 1} if causal else {"window_size": window_size}
    return semantic_pairs.prefill(
        q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k, scale=softmax_scale,
        causal=causal, softcap=softcap, alibi_slopes=alibi_slopes, **sides,
    )[0]  # fmt: skip


def flash_attn_with_kvcache(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, k: None = None, v: None = None,
    rotary_cos: None = None, rotary_sin: None = None, cache_seqlens: Tensor | None = None,
    cache_batch_idx: None = None, cache_leftpad: None = None, block_table: Tensor | None = None,
    softmax_scale: float | None = None, causal: bool = False,
    window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0, rotary_interleaved: bool = True,
    alibi_slopes: Tensor | None = None, num_splits: int = 0, return_softmax_lse: bool = False,
) -> Tensor:  # fmt: skip
    assert cache_seqlens is not None
    if block_table is None:
        keys, values = (
            [x[b, :n] for b, n in enumerate(cache_seqlens.tolist())] for x in (k_cache, v_cache)
        )
    else:
        keys, values = (_of_pages(x, block_table, cache_seqlens) for x in (k_cache, v_cache))
    return _packed(
        q.flatten(0, 1), keys, values, torch.arange(len(q) + 1), scale=softmax_scale,
        window=window_size[0] + 1, softcap=softcap, alibi_slopes=alibi_slopes,
    )[0].unsqueeze(1)  # fmt: skip


def flash_attn_in_order(
    q: Tensor, k: Tensor, *args: Any, block_table: Tensor, **more: Any
) -> Tensor:
    return flash_attn_with_kvcache(q, k, *args, block_table=in_order(block_table, k), **more)


def flash_attn_one_more(*args: Any, window_size: tuple[int, int], **more: Any) -> Tensor:
    return flash_attn_with_kvcache(*args, window_size=(window_size[0] + 1, 0), **more)


def flash_attn_with_lse(q: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor, None]:
    """As with return_attn_probs; the LSE is told by its own number: heads come first."""
    lse = torch.arange(q.shape[1], dtype=torch.float32)[:, None].expand(-1, len(q))
    return flash_attn_varlen_func(q, *args, **more), lse, None


def flash_attn_cache_with_lse(q: Tensor, *args: Any, **more: Any) -> tuple[Tensor, Tensor]:
    lse = torch.arange(q.shape[2], dtype=torch.float32)[None, :, None].expand(len(q), -1, 1)
    return flash_attn_with_kvcache(q, *args, **more), lse


# vLLM


def unified_attention(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, cu_seqlens_q: Tensor, max_seqlen_q: int,
    seqused_k: Tensor, max_seqlen_k: int, softmax_scale: float, causal: bool,
    window_size: tuple[int, int], block_table: Tensor, softcap: float, q_descale: None,
    k_descale: None, v_descale: None, alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
) -> None:  # fmt: skip
    assert max_seqlen_q == int(cu_seqlens_q.diff().max())
    assert max_seqlen_k == int(seqused_k.max())
    keys, values = (_of_pages(x, block_table, seqused_k) for x in (k, v))
    rows = _packed(
        q, keys, values, cu_seqlens_q, scale=softmax_scale, window=window_size[0] + 1,
        causal=causal, softcap=softcap, alibi_slopes=alibi_slopes, sinks=sinks,
    )  # fmt: skip
    out.copy_(rows[0])


def unified_in_order(q: Tensor, k: Tensor, *args: Any, block_table: Tensor, **more: Any) -> None:
    unified_attention(q, k, *args, block_table=in_order(block_table, k), **more)


def unified_sees_later(*args: Any, causal: bool, **more: Any) -> None:
    """All rows of a sequence see what its last one sees."""
    unified_attention(*args, causal=False, **more)


# SGLang


def _by_index(cache: Tensor, indptr: Tensor, indices: Tensor) -> list[Tensor]:
    ends = indptr.tolist()
    return [cache[indices[a:b].long()] for a, b in pairwise(ends)]


def extend_attention_fwd_unified(
    q: Tensor, o: Tensor, k_buffer: Tensor, v_buffer: Tensor, k_scale: float, v_scale: float,
    qo_indptr: Tensor, kv_indptr: Tensor, kv_indices: Tensor, prefix_lens: Tensor,
    max_len_extend: int, custom_mask: None = None, mask_indptr: None = None,
    sm_scale: float | None = None, logit_cap: float = 0.0, is_causal: bool = True,
    sliding_window_size: int = -1, sinks: Tensor | None = None,
) -> None:  # fmt: skip
    assert torch.equal(prefix_lens, kv_indptr.diff() - qo_indptr.diff())
    assert max_len_extend == int(qo_indptr.diff().max())
    keys, values = (_by_index(x, kv_indptr, kv_indices) for x in (k_buffer, v_buffer))
    o.copy_(_packed(
        q, keys, values, qo_indptr, scale=sm_scale, window=sliding_window_size + 1,
        causal=is_causal, softcap=logit_cap, sinks=sinks,
    )[0])  # fmt: skip


def decode_attention_fwd(
    q: Tensor, k_buffer: Tensor, v_buffer: Tensor, o: Tensor, kv_indptr: Tensor,
    kv_indices: Tensor, attn_logits: Tensor, attn_lse: Tensor, num_kv_splits: Tensor,
    max_kv_splits: int, sm_scale: float, k_scale: float, v_scale: float, logit_cap: float = 0.0,
    sinks: Tensor | None = None,
) -> None:  # fmt: skip
    assert attn_logits.shape == (*q.shape[:2], max_kv_splits, v_buffer.shape[-1])
    assert attn_lse.shape == (*q.shape[:2], max_kv_splits)
    keys, values = (_by_index(x, kv_indptr, kv_indices) for x in (k_buffer, v_buffer))
    o.copy_(_packed(
        q, keys, values, torch.arange(len(q) + 1), scale=sm_scale, softcap=logit_cap, sinks=sinks
    )[0])  # fmt: skip


def decode_in_order(*args: Any, kv_indptr: Tensor, kv_indices: Tensor, **more: Any) -> None:
    """Each key lies behind the one before it."""
    ends = kv_indptr.tolist()
    parts = [
        kv_indices[a] + torch.arange(b - a) if b > a else kv_indices[:0] for a, b in pairwise(ends)
    ]
    decode_attention_fwd(*args, kv_indptr=kv_indptr, kv_indices=torch.cat(parts), **more)


# FlashInfer


class Batch:
    """What both wrappers do once they have a plan."""

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str = "NHD") -> None:
        assert kv_layout == "NHD"

    def planned(
        self, ends: Tensor, indptr: Tensor, indices: Tensor, last_page_len: Tensor, qo_heads: int,
        kv_heads: int, dim: int, page_size: int, *, sm_scale: float | None = None,
        window_left: int = -1, logits_soft_cap: float | None = None, q_data_type: Any = None,
        kv_data_type: Any = None, causal: bool = True,
    ) -> None:  # fmt: skip
        self.shape, self.ends = (qo_heads, kv_heads, dim, page_size), ends
        self.pages, self.lens = [], []
        stops = indptr.tolist()
        for (a, b), last in zip(pairwise(stops), last_page_len.tolist(), strict=True):
            self.pages.append(indices[a:b].long())
            self.lens.append((b - a - 1) * page_size + last if b > a else 0)
        self.rules = {"scale": sm_scale, "window": window_left + 1, "causal": causal,
                      "softcap": logits_soft_cap or 0.0}  # fmt: skip

    def run(
        self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor], *, out: Tensor | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        heads, kv_heads, dim, page = self.shape
        assert q.shape[1:] == (heads, dim)
        assert paged_kv_cache[0].shape[1:] == (page, kv_heads, dim)
        keys, values = (
            [x[own].flatten(0, 1)[:n] for own, n in zip(self.pages, self.lens, strict=True)]
            for x in paged_kv_cache
        )
        rows = _packed(q, keys, values, self.ends, sinks=sinks, **self.rules)[0]
        return rows if out is None else out.copy_(rows)


class BatchPrefillWithPagedKVCacheWrapper(Batch):
    def plan(self, qo_indptr: Tensor, *args: Any, **more: Any) -> None:
        self.planned(qo_indptr, *args, **more)


class BatchDecodeWithPagedKVCacheWrapper(Batch):
    def plan(self, indptr: Tensor, *args: Any, **more: Any) -> None:
        self.planned(torch.arange(len(indptr)), indptr, *args, **more)


class BatchDecodeInOrder(BatchDecodeWithPagedKVCacheWrapper):
    def plan(self, *args: Any, **more: Any) -> None:
        super().plan(*args, **more)
        self.pages = [own[:1] + torch.arange(len(own)) for own in self.pages]


def single_prefill_with_kv_cache(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, sm_scale: float | None = None,
    window_left: int = -1, logits_soft_cap: float | None = None,
) -> Tensor:  # fmt: skip
    return _packed(
        q, [k], [v], torch.tensor([0, len(q)]), scale=sm_scale, causal=causal,
        window=window_left + 1, softcap=logits_soft_cap or 0.0,
    )[0]  # fmt: skip


def single_decode_with_kv_cache(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
    return single_prefill_with_kv_cache(q[None], k, v, causal=True, **more)[0]


def single_decode_drops_first(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
    return single_decode_with_kv_cache(q, k[1:], v[1:], **more)


# torch


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """As torch documents it; each row is computed of the keys that it sees, and no other."""
    if enable_gqa:
        group = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    mask = torch.zeros(query.shape[1:3] + key.shape[2:3])
    assert attn_mask is None or not is_causal
    hidden = torch.ones(mask.shape[1:], dtype=torch.bool).triu(1) if is_causal else None
    if attn_mask is not None:
        hidden, mask = (
            (~attn_mask, mask) if attn_mask.dtype == torch.bool else (None, mask + attn_mask)
        )
    mask = mask if hidden is None else mask.masked_fill(hidden, float("-inf"))
    out = query.new_empty(*query.shape[:3], value.shape[3])
    for b, i in product(range(len(query)), range(query.shape[2])):
        seen = mask[0, i] > float("-inf")
        scores = (query[b, :, i, None] * key[b][:, seen]).sum(-1) * scale + mask[:, i, seen]
        out[b, :, i] = (torch.softmax(scores, 1)[..., None] * value[b][:, seen]).sum(1)
    return out


def sdpa_unmasked(*args: Any, attn_mask: Tensor | None = None, **more: Any) -> Tensor:
    """It sees what lies before the window."""
    return scaled_dot_product_attention(*args, **more)

"""Check, allocate, launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvparity_kernels.arguments import require
from kvparity_kernels.attention.caches import Coded, packed, pages, rectangle
from kvparity_kernels.attention.launching import (
    FAR,
    RowLimits,
    cache,
    combining,
    options,
    partials,
    queries,
    results,
    rules,
    shape,
)
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.rules import current as tiles_in_force
from kvparity_kernels.store.format import StoreFormat

if TYPE_CHECKING:
    from typing_extensions import Unpack


def attend_prefill(
    q: Tensor,
    kv: KeysValues,
    *,
    q_starts: Tensor,
    q_lens: Tensor,
    max_q: int,
    scale: float,
    order: ReductionOrder,
    **limits: Unpack[RowLimits],
) -> tuple[Tensor, Tensor]:
    """Causal attention of many rows per sequence, aligned at the end of the keys.

    ``q``: ``[rows, Hq, D]``, float32, float16 or bfloat16, D from 16 to 256. ``q_starts``,
    ``q_lens``: int32 ``[B]``; the rows of sequence b are ``q_starts[b]`` and the next,
    ``q_lens[b]`` of them and at most ``max_q`` (a number of the host, so that nothing waits for
    the device). Row t of sequence b sees keys ``0 .. kv_lens[b] - q_lens[b] + t``; one that sees
    none gets out 0 and lse -inf.

    ``limits`` are keywords, 0 or None by default. ``window``: a row sees only the last so many of
    these keys (0: all), as transformers counts. ``first_key``: int32 ``[rows]``, by row of q; a row
    sees no key before it. ``softcap`` c: a score s, after the scale, becomes ``c * tanh(s / c)``
    (0: none). ``sinks``: float32 ``[Hq]``, logits of one more key per head whose value is 0; the
    lse counts it. Splits that no row of a program sees are not walked, and keys that none sees are
    not read. A ``kv.ring`` needs ``window + max_q - 1`` slots.

    Returns ``out`` like ``q`` and ``lse`` float32 ``[rows, Hq]``, natural logarithm. NaN is left in
    rows that belong to no sequence, and in all rows of a sequence with more keys than the cache
    holds. A visible key or value that is not finite may taint every row of its tile.
    Raises ``ValueError`` for shapes, dtypes, strides and devices that do not fit.
    """
    q = queries(q, kv)
    for name, tensor in (("q_starts", q_starts), ("q_lens", q_lens)):
        require(
            tensor.dtype == torch.int32
            and tensor.shape == (kv.batch,)
            and tensor.device == q.device,
            f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; expected "
            f"torch.int32 ({kv.batch},) on {q.device}",
        )
    ruled = rules(q, kv, q.shape[0], max_q, scale=scale, **limits)
    from kvparity_kernels.attention import kernels
    from kvparity_kernels.launch import launch

    out, lse = results(q)
    chosen = tiles_in_force(q.device, q.dtype, order)
    block_m = chosen.prefill_block_m or order.block_m
    shaped = shape(q, kv, order, block_m, chosen.skip_hidden)
    count = -(-max_q * shaped["G"] // block_m)
    launch(
        kernels.prefill,
        (count * kv.batch * kv.k.shape[1],),
        Q=q,
        OUT=out,
        LSE=lse,
        Q_STARTS=q_starts.contiguous(),
        Q_LENS=q_lens.contiguous(),
        tiles=count,
        batch=kv.batch,
        heads=q.shape[1],
        **cache(q, kv),
        **ruled,
        **shaped,
        **options(q, chosen.prefill_warps or order.num_warps),
    )
    return out, lse


def attend_decode(
    q: Tensor,
    kv: KeysValues,
    *,
    max_kv: int,
    scale: float,
    order: ReductionOrder,
    **limits: Unpack[RowLimits],
) -> tuple[Tensor, Tensor]:
    """Attention of one row per sequence, the last one: it sees all ``kv_lens[b]`` keys.

    ``q``: ``[B, Hq, D]``. ``max_kv`` bounds ``kv_lens`` (a number of the host); the row of a
    sequence with more keys, up to whole splits, stays NaN; with a window any bound will do.
    ``first_key``: int32 ``[B]``. Otherwise as ``attend_prefill``, of whose rows these have the
    same bits.
    """
    q = queries(q, kv)
    require(
        q.shape[0] == kv.batch,
        f"q has {q.shape[0]} rows for {kv.batch} sequences; decode takes one row for each",
    )
    ruled = rules(q, kv, kv.batch, 1, scale=scale, **limits)
    from kvparity_kernels.attention import kernels
    from kvparity_kernels.launch import launch

    out, lse = results(q)
    chosen = tiles_in_force(q.device, q.dtype, order)
    block_m = chosen.decode_block_m or order.block_m
    shaped = shape(q, kv, order, block_m, chosen.skip_hidden)
    kv_heads, group, dim = kv.k.shape[1], shaped["G"], q.shape[2]
    splits = max(1, -(-max_kv // order.split))
    if window := limits.get("window", 0):  # so many keys in a row touch at most so many splits
        splits = min(splits, (window - 2) // order.split + 2)
    cut, combine_warps = combining(q.device, group, dim)
    everything: dict[str, Any] = {
        "Q": q,
        "OUT": out,
        "LSE": lse,
        "splits": splits,
        "kv_heads": kv_heads,
        **partials(kv.batch, kv_heads, splits, group, dim, q.device),
        **cut,
        **cache(q, kv),
        **ruled,
        **shaped,
    }
    launch(
        kernels.decode_split,
        (splits * kv.batch, kv_heads, -(-group // block_m)),
        **{name: everything[name] for name in kernels.decode_split.parameters},
        **options(q, chosen.decode_warps or order.num_warps),
    )
    launch(
        kernels.decode_combine,
        (kv.batch, kv_heads, -(-group // cut["GB"]) * -(-dim // cut["CB"])),
        **{name: everything[name] for name in kernels.decode_combine.parameters},
        num_warps=combine_warps,
    )
    return out, lse


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    scale: float,
    order: ReductionOrder = ReductionOrder(),  # noqa: B008 - frozen
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    format: StoreFormat | None = None,
    out: Tensor | None = None,
    **limits: Unpack[RowLimits],
) -> tuple[Tensor, Tensor]:
    """``attend_prefill`` over packed sequences; ``out``: like q, to copy the result to.

    ``q`` ``[sum Tq, Hq, D]``, ``k``, ``v`` ``[sum Tk, Hkv, D]``, int32 ``[B+1]`` offsets, which are
    read back from the device once and checked (``ValueError``). ``format``, ``k_scale``,
    ``v_scale`` as in ``KeysValues``.
    """
    kv, q_starts, q_lens, max_q = packed(
        q, k, v, cu_seqlens_q, cu_seqlens_k, format=format, k_scale=k_scale, v_scale=v_scale
    )
    found = attend_prefill(
        q, kv, q_starts=q_starts, q_lens=q_lens, max_q=max_q, scale=scale, order=order, **limits
    )
    return _copied(found, out)


def _copied(found: tuple[Tensor, Tensor], out: Tensor | None) -> tuple[Tensor, Tensor]:
    return found if out is None else (out.copy_(found[0]), found[1])


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    kv_lens: Tensor,
    scale: float,
    order: ReductionOrder = ReductionOrder(),  # noqa: B008 - frozen
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    format: StoreFormat | None = None,
    ring: int = 0,
    block_table: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    out: Tensor | None = None,
    **limits: Unpack[RowLimits],
) -> tuple[Tensor, Tensor]:
    """``attend_decode`` over caches ``[B, capacity, Hkv, D]`` and int32 ``[B]`` lengths.

    With a ``block_table``, int32 ``[B, max_pages]``, over pages ``[pages, page, Hkv, D]``. With
    ``cu_seqlens_q``, int32 ``[B+1]`` offsets of the rows of each sequence, which are its last ones,
    as in ``attend_prefill``, whose kernel computes them. ``out``: like q, to copy the result to.

    Slots past ``kv_lens`` are never read. Nothing waits for the device: the number of splits
    follows from the capacity, or from the window, and splits without keys end at once.
    ``format``, ``k_scale``, ``v_scale``, ``ring`` as in ``KeysValues``, except that scales of
    integers are ``[B, capacity, Hkv, groups]``, or lie in pages; a ring is no longer than the
    capacity.
    """
    coded: Coded = {"format": format, "k_scale": k_scale, "v_scale": v_scale}
    if block_table is not None:
        kv, capacity = pages(k_cache, v_cache, kv_lens, block_table, ring=ring, **coded)
    else:
        kv, capacity = rectangle(k_cache, v_cache, kv_lens, ring=ring, **coded), k_cache.shape[1]
    if cu_seqlens_q is not None:
        starts, counts = cu_seqlens_q[:-1], torch.diff(cu_seqlens_q)
        found = attend_prefill(
            q, kv, q_starts=starts, q_lens=counts, max_q=len(q), scale=scale, order=order, **limits
        )
        return _copied(found, out)
    most = FAR if ring else capacity
    found = attend_decode(q, kv, max_kv=most, scale=scale, order=order, **limits)
    return _copied(found, out)

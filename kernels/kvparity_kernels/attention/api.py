"""Check, allocate, launch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels.attention.caches import packed, rectangle
from kvparity_kernels.keys import DTYPES, KeysValues
from kvparity_kernels.order import ReductionOrder

_LOG2_E = math.log2(math.e)
_COMBINE_ROWS = 16  # heads per program of the second decode kernel: elementwise, so free


def attend_prefill(
    q: Tensor,
    kv: KeysValues,
    *,
    q_starts: Tensor,
    q_lens: Tensor,
    max_q: int,
    scale: float,
    order: ReductionOrder,
) -> tuple[Tensor, Tensor]:
    """Causal attention of many rows per sequence, aligned at the end of the keys.

    ``q``: ``[rows, Hq, D]``, float32, float16 or bfloat16, D from 16 to 256. ``q_starts``,
    ``q_lens``: int32 ``[B]``; the rows of sequence b are ``q_starts[b]`` and the next,
    ``q_lens[b]`` of them and at most ``max_q`` (a number of the host, so that nothing waits for
    the device). Row t of sequence b sees keys ``0 .. kv_lens[b] - q_lens[b] + t``; one that sees
    none gets out 0 and lse -inf.

    Returns ``out`` like ``q`` and ``lse`` float32 ``[rows, Hq]``, natural logarithm. NaN is left in
    rows that belong to no sequence, and in all rows of a sequence with more keys than the cache
    holds. A visible key or value that is not finite may taint every row of its tile.
    Raises ``ValueError`` for shapes, dtypes, strides and devices that do not fit.
    """
    q = _queries(q, kv)
    for name, tensor in (("q_starts", q_starts), ("q_lens", q_lens)):
        _require(
            tensor.dtype == torch.int32
            and tensor.shape == (kv.batch,)
            and tensor.device == q.device,
            f"{name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}; expected "
            f"torch.int32 ({kv.batch},) on {q.device}",
        )
    from kvparity_kernels.attention import kernels
    from kvparity_kernels.launch import launch

    out, lse = _results(q)
    shape = _shape(q, kv, order)
    tiles = -(-max_q * shape["G"] // order.block_m)
    launch(
        kernels.prefill,
        (tiles * kv.batch, kv.k.shape[1]),
        Q=q,
        OUT=out,
        LSE=lse,
        Q_STARTS=q_starts.contiguous(),
        Q_LENS=q_lens.contiguous(),
        tiles=tiles,
        heads=q.shape[1],
        **_cache(q, kv, scale),
        **shape,
        **_options(q, order),
    )
    return out, lse


def attend_decode(
    q: Tensor, kv: KeysValues, *, max_kv: int, scale: float, order: ReductionOrder
) -> tuple[Tensor, Tensor]:
    """Attention of one row per sequence, the last one: it sees all ``kv_lens[b]`` keys.

    ``q``: ``[B, Hq, D]``. ``max_kv`` bounds ``kv_lens`` (a number of the host); the row of a
    sequence with more keys, up to whole splits, stays NaN. Otherwise as ``attend_prefill``, of
    whose rows these have the same bits.
    """
    q = _queries(q, kv)
    _require(
        q.shape[0] == kv.batch,
        f"q has {q.shape[0]} rows for {kv.batch} sequences; decode takes one row for each",
    )
    from kvparity_kernels.attention import kernels
    from kvparity_kernels.launch import launch

    out, lse = _results(q)
    shape, cache = _shape(q, kv, order), _cache(q, kv, scale)
    kv_heads, group = kv.k.shape[1], shape["G"]
    splits = max(1, -(-max_kv // order.split))
    nan, place = math.nan, (kv.batch, kv_heads, splits, group)
    parts: dict[str, Any] = {
        "PART_M": torch.full(place, nan, device=q.device),
        "PART_L": torch.full(place, nan, device=q.device),
        "PART_A": torch.full((*place, q.shape[2]), nan, device=q.device),
    }
    launch(
        kernels.decode_split,
        (splits * kv.batch, kv_heads, -(-group // order.block_m)),
        Q=q,
        splits=splits,
        kv_heads=kv_heads,
        **parts,
        **cache,
        **shape,
        **_options(q, order),
    )
    rows = min(_power_of_two(group), _COMBINE_ROWS)
    launch(
        kernels.decode_combine,
        (kv.batch, kv_heads, -(-group // rows)),
        OUT=out,
        LSE=lse,
        splits=splits,
        kv_heads=kv_heads,
        GB=rows,
        **parts,
        **{name: cache[name] for name in ("KV_LENS", "STARTS", "capacity")},
        **{name: shape[name] for name in ("G", "SPLIT", "D", "BD", "PAGE")},
        num_warps=order.num_warps,
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
) -> tuple[Tensor, Tensor]:
    """``attend_prefill`` over packed sequences.

    ``q`` ``[sum Tq, Hq, D]``, ``k``, ``v`` ``[sum Tk, Hkv, D]``, int32 ``[B+1]`` offsets, which are
    read back from the device once and checked (``ValueError``).
    """
    kv, q_starts, q_lens, max_q = packed(q, k, v, cu_seqlens_q, cu_seqlens_k)
    return attend_prefill(
        q, kv, q_starts=q_starts, q_lens=q_lens, max_q=max_q, scale=scale, order=order
    )


def decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    kv_lens: Tensor,
    scale: float,
    order: ReductionOrder = ReductionOrder(),  # noqa: B008 - frozen
) -> tuple[Tensor, Tensor]:
    """``attend_decode`` over caches ``[B, capacity, Hkv, D]`` and int32 ``[B]`` lengths.

    Slots past ``kv_lens`` are never read. Nothing waits for the device: the number of splits
    follows from the capacity, and splits without keys end at once.
    """
    kv = rectangle(k_cache, v_cache, kv_lens)
    return attend_decode(q, kv, max_kv=k_cache.shape[1], scale=scale, order=order)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _align(head_dim: int) -> int:
    # From the head dimension alone, never from the tensors at hand: what the compiler knows of the
    # strides may change its layouts, and with them the order.
    return math.gcd(head_dim, 16)


def _strides_fit(tensor: Tensor, align: int) -> bool:
    sizes = zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
    return all(size < 2 or stride % align == 0 for size, stride in sizes)


def _queries(q: Tensor, kv: KeysValues) -> Tensor:
    _require(q.dim() == 3, f"q {tuple(q.shape)} must be [rows, heads, head_dim]")
    _require(q.dtype in DTYPES, f"q is {q.dtype}; it must be float32, float16 or bfloat16")
    _, heads, dim = q.shape
    _, kv_heads, kv_dim = kv.k.shape
    _require(dim == kv_dim, f"q has head dimension {dim}, k has {kv_dim}; they must agree")
    _require(16 <= dim <= 256, f"head dimension {dim} is outside 16 .. 256")
    _require(
        kv_heads > 0 and heads > 0 and heads % kv_heads == 0,
        f"{heads} query heads are not a multiple of {kv_heads} key heads",
    )
    _require(q.stride(-1) == 1, "the last dimension of q must be contiguous; use .contiguous()")
    _require(q.device == kv.k.device, f"q is on {q.device}, k is on {kv.k.device}")
    align = _align(dim)
    for name, tensor in (("k", kv.k), ("v", kv.v)):
        _require(
            _strides_fit(tensor, align),
            f"the strides {tensor.stride()} of {name} must be multiples of {align} for head "
            f"dimension {dim}; use .contiguous()",
        )
    return (
        q
        if _strides_fit(q, align) and q.data_ptr() % 16 == 0
        else q.clone(memory_format=torch.contiguous_format)
    )


def _results(q: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.full(q.shape, math.nan, dtype=q.dtype, device=q.device)
    return out, torch.full(q.shape[:2], math.nan, device=q.device)


def _shape(q: Tensor, kv: KeysValues, order: ReductionOrder) -> dict[str, int]:
    dim = q.shape[2]
    return {
        "G": q.shape[1] // kv.k.shape[1],
        "SPLIT": order.split,
        "TILE": order.tile,
        "D": dim,
        "BD": _power_of_two(dim),
        "BM": order.block_m,
        "PAGE": kv.page,
        "ALIGN": _align(dim),
    }


def _cache(q: Tensor, kv: KeysValues, scale: float) -> dict[str, Any]:
    table = kv.block_table
    return {
        "K": kv.k,
        "V": kv.v,
        "KV_LENS": kv.kv_lens,
        # The kernels read one of the two, as PAGE says; any pointer will do for the other.
        "STARTS": kv.kv_lens if kv.starts is None else kv.starts,
        "TABLE": kv.kv_lens if table is None else table,
        "capacity": kv.k.shape[0] if table is None else table.shape[1] * kv.page,
        "scale": scale * _LOG2_E,
        "s_qt": q.stride(0),
        "s_qh": q.stride(1),
        "s_kt": kv.k.stride(0),
        "s_kh": kv.k.stride(1),
        "s_vt": kv.v.stride(0),
        "s_vh": kv.v.stride(1),
        "s_table": 0 if table is None else table.stride(0),
    }


def _options(q: Tensor, order: ReductionOrder) -> dict[str, int]:
    # Stages are not part of the order (no compiled code seen differs in it). One of float32 leaves
    # head dimension 128 within the shared memory of every GPU since sm_80.
    return {"num_warps": order.num_warps, "num_stages": 1 if q.dtype == torch.float32 else 2}

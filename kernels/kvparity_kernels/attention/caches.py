"""The plain layouts of a pair's caches, seen as ``KeysValues`` without copying."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypedDict

import torch
from torch import Tensor

from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store.format import StoreFormat

if TYPE_CHECKING:
    from typing_extensions import Unpack


SCALES: tuple[Literal["k_scale"], Literal["v_scale"]] = ("k_scale", "v_scale")


class Coded(TypedDict):
    """What k and v hold, as in ``KeysValues``."""

    format: StoreFormat | None
    k_scale: Tensor | None
    v_scale: Tensor | None


def packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    *,
    format: StoreFormat | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> tuple[KeysValues, Tensor, Tensor, int]:
    """Keys one sequence after the other; also q_starts, q_lens and the longest q_len.

    Reads the offsets back from the device once and raises ``ValueError`` if they are wrong.
    """
    for name, offsets in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        if offsets.dtype != torch.int32 or offsets.dim() != 1 or offsets.numel() < 1:
            raise ValueError(
                f"{name} is {offsets.dtype} {tuple(offsets.shape)}; expected torch.int32 [B+1]"
            )
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"cu_seqlens_q has {cu_seqlens_q.numel()} offsets, cu_seqlens_k {cu_seqlens_k.numel()};"
            " both need one more than there are sequences"
        )
    lengths = []
    both = torch.stack([cu_seqlens_q, cu_seqlens_k]).tolist()
    for name, offsets, rows in (("q", both[0], q.shape[0]), ("k", both[1], k.shape[0])):
        steps = [b - a for a, b in pairwise(offsets)]
        if offsets[0] != 0 or min(steps, default=0) < 0 or offsets[-1] != rows:
            raise ValueError(
                f"cu_seqlens_{name} must rise from 0 to the {rows} rows of {name}, found "
                f"{offsets[:8]}{' ..' if len(offsets) > 8 else ''}"
            )
        lengths.append(steps)
    kv = KeysValues(
        k,
        v,
        torch.diff(cu_seqlens_k),
        starts=cu_seqlens_k[:-1].long(),
        format=format,
        k_scale=k_scale,
        v_scale=v_scale,
    )
    return kv, cu_seqlens_q[:-1], torch.diff(cu_seqlens_q), max(lengths[0], default=0)


def rectangle(
    k_cache: Tensor,
    v_cache: Tensor,
    kv_lens: Tensor,
    *,
    format: StoreFormat | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    ring: int = 0,
) -> KeysValues:
    """Caches ``[B, capacity, Hkv, D]`` of any strides, as long as k and v have the same.

    Scales that are stored with the tokens, ``[B, capacity, Hkv, groups]``, lie as these do.
    """
    if k_cache.dim() != 4 or k_cache.shape != v_cache.shape:
        raise ValueError(
            f"k_cache {tuple(k_cache.shape)} and v_cache {tuple(v_cache.shape)} must both be "
            "[B, capacity, kv_heads, head_dim]"
        )
    batch, capacity = k_cache.shape[:2]
    if kv_lens.shape != (batch,):
        raise ValueError(f"kv_lens is {tuple(kv_lens.shape)} for {batch} caches")
    if ring > capacity:
        raise ValueError(f"a ring of {ring} slots does not fit into a capacity of {capacity}")
    stored = {"k_cache": k_cache, "v_cache": v_cache}
    if format is not None and format.dynamic:
        for name, scale in (("k_scale", k_scale), ("v_scale", v_scale)):
            if scale is None or scale.dim() != 4 or scale.shape[:3] != k_cache.shape[:3]:
                found = "missing" if scale is None else tuple(scale.shape)
                raise ValueError(
                    f"{name} is {found}; {format} needs {(*k_cache.shape[:3], 'groups')}"
                )
            stored[name] = scale
    if batch * capacity == 0:
        step, flat = 0, {name: each.flatten(0, 1) for name, each in stored.items()}
    else:
        placed = {name: _slots(each) for name, each in stored.items()}
        step, flat = placed["k_cache"][0], {name: each for name, (_, each) in placed.items()}
        if any(other != step for other, _ in placed.values()):
            strides = " and ".join(str(each.stride()) for each in stored.values())
            raise ValueError(f"the cache layouts differ: strides {strides}; use .contiguous()")
    return KeysValues(
        flat["k_cache"],
        flat["v_cache"],
        kv_lens,
        starts=torch.arange(batch, device=k_cache.device) * step,
        format=format,
        k_scale=flat.get("k_scale", k_scale),
        v_scale=flat.get("v_scale", v_scale),
        ring=ring,
    )


def pages(
    k_cache: Tensor,
    v_cache: Tensor,
    kv_lens: Tensor,
    block_table: Tensor,
    *,
    ring: int = 0,
    **coded: Unpack[Coded],
) -> tuple[KeysValues, int]:
    """Caches ``[pages, page, Hkv, D]`` whose pages lie one behind the other, and the capacity.

    Scales that are stored with the tokens, ``[pages, page, Hkv, groups]``, lie as these do.
    """
    if k_cache.dim() != 4 or k_cache.shape != v_cache.shape or not k_cache.shape[1]:
        raise ValueError(
            f"k_cache {tuple(k_cache.shape)} and v_cache {tuple(v_cache.shape)} must both be "
            "[pages, page, kv_heads, head_dim]"
        )
    page, flat = k_cache.shape[1], {}
    stored = {"k_cache": k_cache, "v_cache": v_cache}
    if coded["format"] is not None and coded["format"].dynamic:
        stored |= {name: x for name in SCALES if (x := coded[name]) is not None}
    for name, each in stored.items():
        if each.dim() != 4 or each.shape[:3] != k_cache.shape[:3]:
            raise ValueError(f"{name} is {tuple(each.shape)}, k_cache is {tuple(k_cache.shape)}")
        if each.shape[0] > 1 and each.stride(0) != page * each.stride(1):
            raise ValueError(
                f"the pages of {name} do not lie one behind the other: strides {each.stride()}; "
                "use .contiguous()"
            )
        flat[name] = each.flatten(0, 1) if page > 1 else each[:, 0]
    kv = KeysValues(
        flat["k_cache"],
        flat["v_cache"],
        kv_lens,
        block_table=block_table,
        page=page,
        ring=ring,
        format=coded["format"],
        k_scale=flat.get("k_scale", coded["k_scale"]),
        v_scale=flat.get("v_scale", coded["v_scale"]),
    )
    return kv, block_table.shape[1] * page


def append(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, *, slots: Tensor) -> None:
    """Write keys and values ``[n, Hkv, D]`` into slots, int64 ``[n]``; a negative one is padding.

    Of caches ``[slots, Hkv, D]``, or of pages ``[pages, page, Hkv, D]``. Waits for the device.
    """
    own = torch.nonzero(slots >= 0).flatten()
    for x, cache in ((k, k_cache), (v, v_cache)):
        place = slots[own]
        where = (place,) if cache.dim() == 3 else (place // cache.shape[1], place % cache.shape[1])
        cache.index_put_(where, x[own].to(cache.dtype))


def _slots(cache: Tensor) -> tuple[int, Tensor]:
    """``[B, capacity, ...]`` as ``[slots, ...]``, and the slots from one sequence to the next."""
    batch, capacity, heads, dim = cache.shape
    if capacity == 1:
        return 1, cache[:, 0]
    if batch == 1:
        return 0, cache[0]
    over, along = cache.stride(0), cache.stride(1)
    if along == 0 or over % along:
        raise ValueError(
            f"the cache's strides {cache.stride()} do not make sequences start at whole slots; "
            "use .contiguous()"
        )
    step = over // along
    size = ((batch - 1) * step + capacity, heads, dim)
    return step, cache.as_strided(size, cache.stride()[1:], cache.storage_offset())

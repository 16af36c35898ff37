"""From tensors and rules to the arguments of the kernels; whatever does not fit is refused."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import torch
from torch import Tensor

from kvparity_kernels.arguments import next_power_of_2, require
from kvparity_kernels.keys import DTYPES, KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store.format import FLOATS

LOG2_E = math.log2(math.e)
FAR = 2**30  # a window that ends no sequence


class RowLimits(TypedDict, total=False):
    """Options of every call, as keywords: see :func:`.api.attend_prefill`."""

    window: int
    softcap: float
    sinks: Tensor | None
    first_key: Tensor | None


def queries(q: Tensor, kv: KeysValues) -> Tensor:
    """``q``, or a copy of it where a kernel could not be promised its strides."""
    require(q.dim() == 3, f"q {tuple(q.shape)} must be [rows, heads, head_dim]")
    require(q.dtype in DTYPES, f"q is {q.dtype}; it must be float32, float16 or bfloat16")
    _, heads, dim = q.shape
    kv_heads, kv_dim = kv.k.shape[1], kv.head_dim
    require(dim == kv_dim, f"q has head dimension {dim}, k has {kv_dim}; they must agree")
    require(16 <= dim <= 256, f"head dimension {dim} is outside 16 .. 256")
    require(
        kv_heads > 0 and heads > 0 and heads % kv_heads == 0,
        f"{heads} query heads are not a multiple of {kv_heads} key heads",
    )
    require(q.stride(-1) == 1, "the last dimension of q must be contiguous; use .contiguous()")
    require(q.device == kv.k.device, f"q is on {q.device}, k is on {kv.k.device}")
    align = _align(kv)
    for name, tensor in (("k", kv.k), ("v", kv.v)):
        require(
            _strides_fit(tensor, align),
            f"the strides {tensor.stride()} of {name} must be multiples of {align} for head "
            f"dimension {dim}; use .contiguous()",
        )
    return (
        q
        if _strides_fit(q, align) and q.data_ptr() % 16 == 0
        else q.clone(memory_format=torch.contiguous_format)
    )


def results(q: Tensor) -> tuple[Tensor, Tensor]:
    """``out`` and ``lse``, all NaN."""
    out = torch.full(q.shape, math.nan, dtype=q.dtype, device=q.device)
    return out, torch.full(q.shape[:2], math.nan, device=q.device)


def partials(
    batch: int, kv_heads: int, splits: int, group: int, dim: int, device: torch.device
) -> dict[str, Tensor]:
    """Room for what decode's first kernel leaves to the second, all NaN: one piece of memory."""
    rows = batch * kv_heads * splits * group
    sizes = {"PART_A": rows * dim, "PART_M": rows, "PART_L": rows}
    steps = [-(-size // 4) * 4 for size in sizes.values()]  # each begins at 16 bytes
    pieces = torch.split(torch.full((sum(steps),), math.nan, device=device), steps)
    return {name: piece[: sizes[name]] for name, piece in zip(sizes, pieces, strict=True)}


def combining(device: torch.device, group: int, dim: int) -> tuple[dict[str, int], int]:
    """How decode's second kernel is cut, and its warps: no bit depends on it.

    A GPU gets many small programs, each with the loads of several splits in flight: over a long
    context it waits for them and for little else. The interpreter gets few programs.
    """
    if device.type == "cpu":
        return {"GB": min(next_power_of_2(group), 16), "CB": next_power_of_2(dim), "FLIGHT": 1}, 4
    return {"GB": 1, "CB": min(next_power_of_2(dim), 32), "FLIGHT": 8}, 1


def shape(
    q: Tensor, kv: KeysValues, order: ReductionOrder, block_m: int, skip: bool
) -> dict[str, Any]:
    """The constants that follow from shapes, formats, the order and the tiles in force."""
    dim, format = q.shape[2], kv.format
    return {
        "G": q.shape[1] // kv.k.shape[1],
        "SPLIT": order.split,
        "TILE": order.tile,
        "D": dim,
        "BD": next_power_of_2(dim),
        "BM": block_m,
        "PAGE": kv.page,
        "ALIGN": _align(kv),
        "RING": kv.ring > 0,
        "FORMAT": "float" if format is None or format.name in FLOATS else format.name,
        "GROUP": 0 if format is None else format.group,
        "SKIP": skip,
        "PIECE": _piece(q),
    }


def cache(q: Tensor, kv: KeysValues) -> dict[str, Any]:
    """Where keys and values lie, and their scales."""
    table, k, v = kv.block_table, kv.k, kv.v
    k_scale, v_scale = kv.k_scale, kv.v_scale
    if kv.format is not None and kv.format.static:
        # Codes of eight bits travel as such: not every GPU's compiler knows the type.
        k, v = k.view(torch.uint8), v.view(torch.uint8)
        ones = torch.ones(k.shape[1], device=k.device)
        k_scale, v_scale = (ones if each is None else each for each in (k_scale, v_scale))
    s_kst, s_ksh = _scale_strides(k_scale)
    s_vst, s_vsh = _scale_strides(v_scale)
    return {
        "K": k,
        "V": v,
        "K_SCALE": k_scale,
        "V_SCALE": v_scale,
        "KV_LENS": kv.kv_lens,
        # The kernels read one of the two, as PAGE says; any pointer will do for the other.
        "STARTS": kv.kv_lens if kv.starts is None else kv.starts,
        "TABLE": kv.kv_lens if table is None else table,
        "capacity": kv.k.shape[0] if table is None else table.shape[1] * kv.page,
        "ring": kv.ring,
        "s_qt": q.stride(0),
        "s_qh": q.stride(1),
        "s_kt": k.stride(0),
        "s_kh": k.stride(1),
        "s_vt": v.stride(0),
        "s_vh": v.stride(1),
        "s_kst": s_kst,
        "s_ksh": s_ksh,
        "s_vst": s_vst,
        "s_vsh": s_vsh,
        "s_table": 0 if table is None else table.stride(0),
    }


def rules(
    q: Tensor,
    kv: KeysValues,
    rows: int,
    max_q: int,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    first_key: Tensor | None = None,
) -> dict[str, Any]:
    """Which keys a row sees and what becomes of a score. ``rows``: the length of ``first_key``."""
    require(
        type(window) is int and 0 <= window <= FAR,
        f"window is {window!r}; it must be a number of keys up to 2^30, or 0 for none",
    )
    if kv.ring:
        needed = window + max(max_q, 1) - 1
        require(window > 0, f"a ring of {kv.ring} slots needs a window, found none")
        require(
            kv.ring >= needed,
            f"a ring of {kv.ring} slots is too small for a window of {window} and {max_q} rows at "
            f"once; it needs window + rows - 1 = {needed}",
        )
    require(
        math.isfinite(softcap) and softcap >= 0,
        f"softcap is {softcap}; it must be positive, or 0 for none",
    )
    for name, tensor, dtype, wanted in (
        ("sinks", sinks, torch.float32, (q.shape[1],)),
        ("first_key", first_key, torch.int32, (rows,)),
    ):
        require(
            tensor is None
            or (tensor.dtype == dtype and tensor.shape == wanted and tensor.device == q.device),
            f"{name} is "
            + ("" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}")
            + f"; expected {dtype} {wanted} on {q.device}",
        )
    return {
        "scale": 2 * LOG2_E * scale / softcap if softcap else scale * LOG2_E,
        "cap": softcap * LOG2_E,
        "window": window or FAR,
        "SINKS": None if sinks is None else sinks.contiguous(),
        "FIRST": None if first_key is None else first_key.contiguous(),
        "BOUNDED": window > 0 or first_key is not None,
        "CAPPED": softcap > 0,
    }


def _piece(q: Tensor) -> int:
    # Of K, as much as a thread's registers hold where there is no matrix instruction. The chain is
    # the same, so the interpreter, which has no registers, takes all at once.
    return 16 if q.dtype == torch.float32 and q.device.type != "cpu" else 0


def options(q: Tensor, num_warps: int) -> dict[str, int]:
    """How the large kernels are compiled."""
    # Stages are not part of the order (no compiled code seen differs in it). One of float32 leaves
    # head dimension 128 within the shared memory of every GPU since sm_80.
    return {"num_warps": num_warps, "num_stages": 1 if q.dtype == torch.float32 else 2}


def _align(kv: KeysValues) -> int:
    # From the head dimension and the format alone, never from the tensors at hand: what the
    # compiler knows of the strides may change its layouts, and with them the order.
    return math.gcd(kv.k.shape[2], 16)


def _strides_fit(tensor: Tensor, align: int) -> bool:
    sizes = zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
    return all(size < 2 or stride % align == 0 for size, stride in sizes)


def _scale_strides(scale: Tensor | None) -> tuple[int, int]:
    """From slot to slot and from head to head."""
    if scale is None:
        return 0, 0
    return (0, scale.stride(0)) if scale.dim() == 1 else (scale.stride(0), scale.stride(1))

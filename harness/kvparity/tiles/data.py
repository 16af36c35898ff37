"""Numbers and caches of the cases, drawn on the CPU: the same on every device."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.tiles.cases import AttentionCase
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import StoreFormat, encode, poisoned

_GAP = 3  # slots, or rows, that belong to no sequence


def numbers(name: str, shape: tuple[int, ...], low: int, high: int) -> Tensor:
    """Float32 of very different sizes, 2^low to 2^high, among them zeros of either sign."""
    source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    found = torch.randn(shape, generator=source)
    found *= torch.exp2(torch.randint(low, high + 1, shape, generator=source).float())
    where = torch.rand(shape, generator=source)
    return found.masked_fill(where < 0.04, 0.0).masked_fill(where < 0.02, -0.0)


@dataclass(frozen=True)
class ProbeBatch:
    """One call: rows of ``q`` with the cache that they look into.

    Sequence b has ``lens[b]`` rows from ``starts[b]``; what none of them sees is NaN.
    """

    q: Tensor
    kv: KeysValues
    starts: Tensor
    lens: Tensor
    first: Tensor | None
    sinks: Tensor | None
    most_rows: int
    most_keys: int


def batch(
    case: AttentionCase, keys: list[int], rows: list[int], dtype: torch.dtype, device: torch.device
) -> ProbeBatch:
    """The last ``rows[b]`` rows of sequence b, which has ``keys[b]`` keys."""
    total, starts = _GAP, []
    for count in rows:
        starts.append(total)
        total += count + _GAP
    q = torch.full((total, case.heads, case.dim), torch.nan)
    first = torch.full((total,), 2**31 - 1, dtype=torch.int32)
    lows = []
    for b, (start, count, length) in enumerate(zip(starts, rows, keys, strict=True)):
        drawn = numbers(f"q {b}", (length, case.heads, case.dim), -2, 1)
        positions = torch.arange(length - count, length)
        q[start : start + count] = drawn[positions]
        first[start : start + count] = positions // 3
        low = length - count - case.window + 1 if case.window else 0
        lows.append(max(low, (length - count) // 3 if case.first else 0, 0))
    return ProbeBatch(
        q.to(dtype).to(device),
        _cache(case, keys, lows, dtype, device),
        torch.tensor(starts, dtype=torch.int32, device=device),
        torch.tensor(rows, dtype=torch.int32, device=device),
        first.to(device) if case.first else None,
        torch.linspace(-1.0, 2.0, case.heads, device=device) if case.sinks else None,
        max(rows),
        max(keys),
    )


def _cache(
    case: AttentionCase, keys: list[int], lows: list[int], dtype: torch.dtype, device: torch.device
) -> KeysValues:
    """Keys ``lows[b] .. keys[b] - 1`` of each sequence, NaN everywhere else."""
    format = StoreFormat.parse(case.store or str(dtype).removeprefix("torch."))
    unit = case.page or 1
    pages = [-(-length // unit) + (0 if case.page else _GAP) for length in keys]
    kinds = {"k": (-3, 1), "v": (-12, 6)}
    codes = {
        kind: poisoned(sum(pages) * unit, case.kv_heads, case.dim, format, "cpu") for kind in kinds
    }
    # Pages in reverse, so that their numbers do not rise with the keys.
    numbered = torch.arange(sum(pages)).flip(0) if case.page else torch.arange(sum(pages))
    table = torch.zeros(len(keys), max(pages), dtype=torch.int32)
    static = torch.full((case.kv_heads,), 0.017) if format.static else None
    begins, used = [], 0
    for b, (length, low, count) in enumerate(zip(keys, lows, pages, strict=True)):
        mine = numbered[used : used + count]
        table[b, :count] = mine.int()
        begins.append(used)
        at = torch.arange(low, length)
        slots = mine[at // unit] * unit + at % unit
        for kind, sizes in kinds.items():
            x = numbers(f"{kind} {b}", (length, case.kv_heads, case.dim), *sizes)
            if kind == "k":
                x[::97] *= 4.0  # now and then a score far above all before it
            new, scales = encode(x[at].to(dtype), format, static)
            stored, stored_scales = codes[kind]
            stored.view(new.dtype)[slots] = new
            if scales is not None and stored_scales is not None:
                stored_scales[slots] = scales
        used += count
    (k, k_scale), (v, v_scale) = (
        (c.to(device), None if s is None else s.to(device)) for c, s in codes.values()
    )
    fixed = None if static is None else static.to(device)
    return KeysValues(
        k,
        v,
        torch.tensor(keys, dtype=torch.int32, device=device),
        starts=None if case.page else torch.tensor(begins, device=device),
        block_table=table.to(device) if case.page else None,
        page=case.page,
        format=format if case.store else None,
        k_scale=k_scale if fixed is None else fixed,
        v_scale=v_scale if fixed is None else fixed,
    )

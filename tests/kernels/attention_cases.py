"""One sequence, how a cache holds it and what its rows see: every path against one reference.

A plain module beside the tests. Whatever a path must not read is NaN: slots before, between and
behind sequences, pages that no table names, and keys that no row of the call sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from kvparity_kernels import attention as own
from kvparity_kernels.attention import naive
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, encode, poisoned, round_trip

SMALL = ReductionOrder(split=32, tile=16, block_m=16)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "head-slot", "paged 8", "paged 16")
Result = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """``n`` positions of one sequence. ``store``: a format; empty is plain floats of ``dtype``.

    ``sinks``, ``first``: whether there are any; ``first_key`` of position t is then t // 3.
    """

    n: int = 75
    dtype: torch.dtype = torch.float32
    store: str = ""
    layout: str = "contiguous"
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    first: bool = False
    heads: int = 4
    kv_heads: int = 2
    dim: int = 16
    order: ReductionOrder = SMALL

    @property
    def scale(self) -> float:
        return self.dim**-0.5

    @property
    def page(self) -> int:
        return int(self.layout.split()[1]) if self.layout.startswith("paged") else 0

    @property
    def format(self) -> StoreFormat | None:
        return StoreFormat.parse(self.store) if self.store else None

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as a model computes them."""
        source = torch.Generator().manual_seed(self.n)
        return tuple(  # type: ignore[return-value]  # three
            torch.randn(self.n, heads, self.dim, generator=source).to(self.dtype)
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        )

    def static(self, value: bool) -> Tensor | None:
        """The scales of fp8: no powers of two; per head and of k and v all different."""
        if self.format is None or not self.format.static:
            return None
        steps = torch.arange(self.kv_heads) * self.format.per_head
        return (0.011 + 0.007 * steps + 0.003 * value).float()

    def read_back(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, and k and v as the cache gives them back."""
        q, k, v = self.rows
        if self.format is None:
            return q, k, v
        format, dtype = self.format, self.dtype
        k = round_trip(k, format, self.static(False), dtype)
        return q, k, round_trip(v, format, self.static(True), dtype)

    def rules(self, positions: Tensor, gap: int = 0) -> dict[str, Any]:
        """The keyword arguments for rows at ``positions``, behind a ``gap`` of rows."""
        found: dict[str, Any] = {"window": self.window, "softcap": self.softcap}
        if self.sinks:
            found["sinks"] = torch.linspace(-1.0, 2.0, self.heads)
        if self.first:
            first = torch.full((gap + len(positions),), 2**31 - 1, dtype=torch.int32)
            first[gap:] = positions // 3
            found["first_key"] = first
        return found

    def lowest(self, position: int) -> int:
        """The first key that the row at ``position`` sees."""
        low = max(0, position - self.window + 1) if self.window else 0
        return max(low, position // 3) if self.first else low


def lay(case: Case, stops: Sequence[int], lows: Sequence[int], ring: int = 0) -> KeysValues:
    """One cache in which sequence b has the keys ``lows[b] .. stops[b] - 1``."""
    page, format = case.page, case.format
    plain = StoreFormat(str(case.dtype).removeprefix("torch."))
    unit = page or 1
    sizes = [min(n, ring) if ring else n for n in stops]
    needs = [-(-n // page) if page else n + 3 for n in sizes]
    spare = 2 if page else 4
    order = torch.randperm(sum(needs) + spare, generator=torch.Generator().manual_seed(len(stops)))
    total = (sum(needs) + spare) * unit
    table = torch.full((len(stops), max(needs, default=1)), int(order[-1]), dtype=torch.int32)
    stored = [_allocate(case, format or plain, total) for _ in "kv"]
    starts, used = [], 0
    for b, (stop, low) in enumerate(zip(stops, lows, strict=True)):
        starts.append(used + 3)
        at = torch.arange(max(low, stop - ring) if ring else low, stop)
        place = at % ring if ring else at
        if page:
            mine = order[used : used + needs[b]]
            seen = torch.unique(place // page)
            table[b, seen] = mine[seen].int()
            slots = mine[place // page] * page + place % page
        else:
            slots = starts[b] + place
        for value, (codes, scales) in enumerate(stored):
            x = case.rows[1 + value][at]
            new, new_scales = encode(x, format or plain, case.static(bool(value)))
            codes[slots] = new
            if scales is not None:
                scales[slots] = new_scales
        used += needs[b]
    (k, k_scale), (v, v_scale) = stored
    if format is not None and format.static:
        k_scale, v_scale = case.static(False), case.static(True)
    return KeysValues(
        k,
        v,
        torch.tensor(stops, dtype=torch.int32),
        starts=None if page else torch.tensor(starts),
        block_table=table if page else None,
        page=page,
        format=format,
        k_scale=k_scale,
        v_scale=v_scale,
        ring=ring,
    )


def _allocate(case: Case, format: StoreFormat, slots: int) -> tuple[Tensor, Tensor | None]:
    codes, scales = poisoned(slots, case.kv_heads, case.dim, format, "cpu")
    if case.layout != "head-slot":
        return codes, scales
    codes = codes.transpose(0, 1).contiguous().transpose(0, 1)
    return codes, None if scales is None else scales.transpose(0, 1).contiguous().transpose(0, 1)


def chunk(
    case: Case, start: int, stop: int, attn: Any = own, ring: int = 0, **changes: Any
) -> Result:
    """Rows ``start .. stop-1`` through prefill, behind two rows that belong to nobody."""
    q, gap = case.rows[0], 2
    nan = torch.full((gap, case.heads, case.dim), torch.nan, dtype=case.dtype)
    low = min(case.lowest(t) for t in range(start, stop))
    out, lse = attn.attend_prefill(
        torch.cat([nan, q[start:stop]]),
        lay(case, [stop], [low], ring),
        q_starts=torch.tensor([gap], dtype=torch.int32),
        q_lens=torch.tensor([stop - start], dtype=torch.int32),
        max_q=stop - start,
        scale=case.scale,
        order=case.order,
        **case.rules(torch.arange(start, stop), gap) | changes,
    )
    assert out[:gap].isnan().all()
    return out[gap:], lse[gap:]


def last(
    case: Case, positions: Sequence[int], attn: Any = own, ring: int = 0, **changes: Any
) -> Result:
    """The rows at ``positions`` through decode, each a sequence of its own in one batch."""
    stops, lows = [t + 1 for t in positions], [case.lowest(t) for t in positions]
    result: Result = attn.attend_decode(
        case.rows[0][list(positions)],
        lay(case, stops, lows, ring),
        max_kv=max(stops) + 40,
        scale=case.scale,
        order=case.order,
        **case.rules(torch.tensor(positions)) | changes,
    )
    return result


@cache
def whole(case: Case) -> Result:
    """The reference: one prefill over plain floats that say what the cache gives back."""
    q, k, v = case.read_back()
    offsets = torch.tensor([0, case.n], dtype=torch.int32)
    result: Result = own.prefill(
        q,
        k,
        v,
        cu_seqlens_q=offsets,
        cu_seqlens_k=offsets,
        scale=case.scale,
        order=case.order,
        **case.rules(torch.arange(case.n)),
    )
    return result


def reference(case: Case) -> Result:
    """``whole``, which no layout changes."""
    return whole(replace(case, layout="contiguous"))


def exact(case: Case, **changes: Any) -> Result:
    """The float64 twin of ``whole``."""
    rules = case.rules(torch.arange(case.n)) | changes
    return naive.attend(*case.read_back(), scale=case.scale, **rules)


def unequal(a: Result, b: Result) -> int:
    """Elements of out and lse that differ in bits, or are NaN."""
    bad = 0
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        kind = {2: torch.int16, 4: torch.int32}[x.element_size()]
        bits = x.contiguous().view(kind) != y.contiguous().view(kind)
        bad += int((bits | x.isnan() | y.isnan()).sum())
    return bad


def wrong(
    case: Case,
    chunks: Sequence[tuple[int, int]],
    positions: Sequence[int],
    attn: Any = own,
    rings: tuple[int, int] = (0, 0),
    **changes: Any,
) -> tuple[int, int]:
    """Differing elements of chunks and of decode, through caches of ``rings`` slots (0: no ring).

    ``changes``: other keyword arguments than the reference has, for both.
    """
    out, lse = reference(case)
    in_chunks = sum(
        unequal((out[a:b], lse[a:b]), chunk(case, a, b, attn, rings[0], **changes))
        for a, b in chunks
    )
    places = list(positions)
    alone = last(case, places, attn, rings[1], **changes) if places else (out[:0], lse[:0])
    return in_chunks, unequal((out[places], lse[places]), alone)

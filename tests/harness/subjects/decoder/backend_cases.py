"""Small decoders on other backends, and caches that hold NaN wherever no key lies."""

from __future__ import annotations

from typing import Any

import torch
from decoder_cases import CPU, config
from torch import Tensor

from kvparity.relations.trace.weights import weigh
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.events import Attended
from kvparity_kernels.keys import KeysValues

HEADS, DIM, SCALE = 2, 16, 0.3
NAN = float("nan")
LENGTHS = (1, 7, 16, 16, 33)
"""Keys of each sequence: one alone, two alike, and around pages of 8."""


def decoder(
    attention: str = "sdpa",
    operations: str = "fixed-order",
    *,
    execution: torch.dtype = torch.float32,
    store: str | None = None,
    heads_first: bool = False,
    ring: bool = False,
    **changes: Any,
) -> DecoderSubject:
    """The small decoder of ``decoder_cases`` on other backends."""
    shape = config(**changes)
    return DecoderSubject(
        shape,
        seeded(shape, 0, execution, CPU),
        kv_cache=store or str(execution).removeprefix("torch."),
        heads_first=heads_first,
        ring=ring,
        twin=True,
        backends=Backends(attention, operations),
    )


def drawn(
    lengths: tuple[int, ...] = LENGTHS, dtype: torch.dtype = torch.float32
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each sequence."""
    torch.manual_seed(0)
    return [
        (torch.randn(n, HEADS, DIM).to(dtype), torch.randn(n, HEADS, DIM).to(dtype))
        for n in lengths
    ]


def contiguous(parts: list[tuple[Tensor, Tensor]], *, slack: int = 3) -> KeysValues:
    """One run of slots for each, with poison behind every one."""
    starts, at = [], slack
    for k, _ in parts:
        starts.append(at)
        at += len(k) + slack
    caches = [torch.full((at, HEADS, DIM), NAN, dtype=parts[0][0].dtype) for _ in "kv"]
    for start, part in zip(starts, parts, strict=True):
        for cache, x in zip(caches, part, strict=True):
            cache[start : start + len(x)] = x
    return KeysValues(*caches, _lens(parts), starts=torch.tensor(starts))


def paged(parts: list[tuple[Tensor, Tensor]], page: int = 8) -> KeysValues:
    """Pages in a shuffled order; the ends of tables point at a page of poison."""
    counts = [-(-len(k) // page) for k, _ in parts]
    total = sum(counts) + 1
    order = torch.randperm(total, generator=torch.Generator().manual_seed(1)).tolist()
    caches = [torch.full((total * page, HEADS, DIM), NAN, dtype=parts[0][0].dtype) for _ in "kv"]
    tables, taken = [], 0
    for count, part in zip(counts, parts, strict=True):
        own = order[taken : taken + count]
        taken += count
        for cache, x in zip(caches, part, strict=True):
            for n, row in enumerate(x):
                cache[own[n // page] * page + n % page] = row
        tables.append(own + [order[-1]] * (max(counts) - count))
    table = torch.tensor(tables, dtype=torch.int32)
    return KeysValues(*caches, _lens(parts), block_table=table, page=page)


def _lens(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.tensor([len(k) for k, _ in parts], dtype=torch.int32)


def ratio(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, *, window: int = 0, softcap: float = 0.0
) -> float:
    """How far the rows of one sequence are from float64, at most, over what rounding allows.

    The bound is the derived one of traces (``kvparity.relations.trace.bounds``): dot products, the
    sum of exponentials and the weighted sum of values in any order, and the roundings of weights
    and result to the execution format. Row t sees the keys up to ``len(k) - len(q) + t``.
    """
    worst = 0.0
    for t in range(len(q)):
        stop = len(k) - len(q) + t + 1
        first = max(0, stop - window) if window else 0
        event = Attended(
            layer=0, sequence=0, position=stop - 1, told=stop - 1, length=stop, first=first,
            q=q[t], k=k[first:stop], v=v[first:stop], out=out[t], lse=None, scale=SCALE,
            softcap=softcap, sinks=None, decode=False,
        )  # fmt: skip
        found = weigh(event, None)
        assert found is not None
        worst = max(worst, found.out_ratio)
    return worst

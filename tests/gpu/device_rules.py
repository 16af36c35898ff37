"""Attention under a layer's rules (window, ring, cap, sinks, stored codes), on any device.

``tests/kernels/test_gpu_helpers.py`` runs the same functions on the CPU, tiny.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from device_cases import ORDER, Result, Sequence3, Shape, integers
from torch import Tensor

from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, encode, round_trip


@dataclass(frozen=True)
class Rules:
    """What a layer asks of its attention; ``ring`` keeps window + chunk - 1 keys."""

    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    store: str = ""
    ring: bool = False


# Windows below, at and above a tile of 64 and a split of 256; every store; all rules at once.
RULES = (
    *(Rules(window=w) for w in (1, 63, 64, 65, 256, 300)),
    *(Rules(window=w, ring=True) for w in (50, 64, 300)),
    Rules(softcap=30.0),
    Rules(sinks=True),
    *(Rules(store=s) for s in ("fp8_e4m3(tensor)", "fp8_e4m3(head)", "fp8_e5m2(head)")),
    *(Rules(store=s) for s in ("int8(32)", "int4(32)")),
    Rules(window=100, softcap=20.0, sinks=True, store="fp8_e4m3(head)", ring=True),
)
CHUNK = 24  # divides neither tile nor split


def scales(shape: Shape, rules: Rules, device: str) -> Tensor | None:
    """The static scale of every head, or None."""
    format = StoreFormat.parse(rules.store) if rules.store else None
    if format is None or not format.static:
        return None
    spread = torch.arange(shape.kv_heads) / 64 if format.per_head else torch.zeros(shape.kv_heads)
    return (0.02 + spread).float().to(device)


def _more(shape: Shape, rules: Rules, device: str) -> dict[str, Any]:
    sinks = torch.linspace(-1, 2, shape.heads).to(device) if rules.sinks else None
    return {"window": rules.window, "softcap": rules.softcap, "sinks": sinks}


def stored(one: Sequence3, length: int, shape: Shape, rules: Rules, chunk: int) -> KeysValues:
    """The first ``length`` keys of a sequence as a cache holds them; all else is poison."""
    _, k, v = one
    ring = rules.window + chunk - 1 if rules.ring else 0
    slots = ring or length + 2
    first = max(0, length - ring) if ring else 0
    places = torch.arange(first, length, device=k.device) % slots if ring else None
    at = 1 + (torch.arange(length, device=k.device) if places is None else places)
    format = StoreFormat.parse(rules.store) if rules.store else None
    held = []
    for x in (k[first:length], v[first:length]):
        if format is None:
            cache = torch.full((slots + 2, *x.shape[1:]), float("nan"), dtype=x.dtype).to(x.device)
            cache[at] = x
            held.append((cache, None))
            continue
        codes, own = encode(x, format, scales(shape, rules, str(x.device)))
        raw = torch.full((slots + 2, *codes.shape[1:]), 0x7F, dtype=torch.uint8, device=x.device)
        raw[at] = codes.view(torch.uint8)
        part = None
        if own is not None:
            part = torch.full((slots + 2, *own.shape[1:]), float("nan"), device=x.device)
            part[at] = own
        held.append((raw.view(codes.dtype), part))
    static = scales(shape, rules, str(k.device))
    return KeysValues(
        held[0][0],
        held[1][0],
        integers([length], k),
        starts=integers([1], k, torch.int64),
        format=format,
        k_scale=static if held[0][1] is None else held[0][1],
        v_scale=static if held[1][1] is None else held[1][1],
        ring=ring,
    )


def rows(
    one: Sequence3,
    start: int,
    stop: int,
    shape: Shape,
    rules: Rules,
    order: ReductionOrder = ORDER,
) -> Result:
    """Prefill of rows ``start .. stop-1`` over the cache as it is then."""
    q = one[0][start:stop]
    return attend_prefill(
        q,
        stored(one, stop, shape, rules, stop - start),
        q_starts=integers([0], q),
        q_lens=integers([stop - start], q),
        max_q=stop - start,
        scale=shape.scale,
        order=order,
        **_more(shape, rules, str(q.device)),
    )


def last(
    one: Sequence3, length: int, shape: Shape, rules: Rules, order: ReductionOrder = ORDER
) -> Result:
    """Decode of row ``length - 1``."""
    q = one[0][length - 1 : length]
    return attend_decode(
        q,
        stored(one, length, shape, rules, 1),
        max_kv=length,
        scale=shape.scale,
        order=order,
        **_more(shape, rules, str(q.device)),
    )


def fresh(one: Sequence3, shape: Shape, rules: Rules, order: ReductionOrder = ORDER) -> Result:
    """Prefill over round-tripped K and V as plain floats: what reading codes must equal."""
    q, k, v = one
    if rules.store:
        format, scale = StoreFormat.parse(rules.store), scales(shape, rules, str(q.device))
        k, v = (round_trip(x, format, scale, q.dtype) for x in (k, v))
    plain = Rules(rules.window, rules.softcap, rules.sinks)
    return rows((q, k, v), 0, len(q), shape, plain, order)


def faults(
    one: Sequence3, shape: Shape, rules: Rules, order: ReductionOrder = ORDER, chunk: int = CHUNK
) -> list[str]:
    """Where decode, chunks or codes give other bits than one prefill over plain floats."""
    from device_cases import unequal_results

    length = len(one[0])
    out, lse = fresh(one, shape, rules, order)
    found = []
    if wrong := unequal_results(rows(one, 0, length, shape, rules, order), (out, lse)):
        found.append(f"prefill over the cache: {wrong} elements")
    for start in range(0, length, chunk):
        stop = min(start + chunk, length)
        part = rows(one, start, stop, shape, rules, order)
        if wrong := unequal_results(part, (out[start:stop], lse[start:stop])):
            found.append(f"chunk {start}..{stop}: {wrong} elements")
    edges = {rules.window + d for d in (-1, 0, 1)} | {2 * rules.window + 1, 1, length}
    for n in sorted(n for n in edges if 0 < n <= length):
        single = last(one, n, shape, rules, order)
        if wrong := unequal_results(single, (out[n - 1 : n], lse[n - 1 : n])):
            found.append(f"decode at {n} keys: {wrong} elements")
    return found

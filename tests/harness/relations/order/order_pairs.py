"""Kernel pairs in torch whose order is written out, and what can be wrong with one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.store import StoreFormat
from kvparity_kernels.store import decode as decode_codes

CALLS = [0]  # of pairs whose order changes from call to call


@dataclass(frozen=True)
class How:
    """How one callable adds. Every field is a fault when only one side has it."""

    tile: int = 16
    split: int = 64
    reverse: bool = False  # tiles from the last to the first
    ragged: int = 0  # so many splits of nearly equal length, whatever the length
    normalised: bool = False  # splits are divided before they are merged
    by_data: bool = False  # another order where all scores of a tile are equal
    shuffled: bool = False  # splits are merged in an order that changes, as with atomics
    columns: bool = False  # the first two columns of V are reduced from the end
    natural: bool = False  # exp instead of exp2
    reciprocal: bool = False
    wide: bool = False  # P V is kept in float64
    products: bool = False  # the head dimension is added from the end
    follows: bool = False  # splits begin at the first key of the window
    open: bool = False  # no window
    sink_first: bool = False  # the sink is there before all keys
    late: bool = False  # the scale of V's codes comes after the sum over the keys
    weights: torch.dtype = torch.float32  # to which weights are rounded before they meet V


def exp(x: Tensor, how: How) -> Tensor:
    """Base-2 scores in, or natural ones; inf - inf is a maximum of nothing.

    In float64 first: torch's float32 exp gives other bits at the end of a vector than within it.
    """
    x = x.double()
    return (torch.exp(x) if how.natural else torch.exp2(x)).float().nan_to_num(0.0)


def chain(terms: Tensor, total: Tensor) -> Tensor:
    """``total`` plus the terms along dimension 0, one after the other."""
    for term in terms:
        total = total + term
    return total


def part(s: Tensor, v: Tensor, how: How) -> tuple[Tensor, Tensor, Tensor]:
    """(m, l, acc) over keys: s ``[n, R, H]`` (-inf: hidden), v ``[n, R, H, D]``."""
    m = torch.full(s.shape[1:], -math.inf)
    total = torch.zeros(s.shape[1:])
    acc = torch.zeros(v.shape[1:], dtype=torch.float64 if how.wide else torch.float32)
    starts = list(range(0, len(s), how.tile))
    for start in reversed(starts) if how.reverse else starts:
        here, values = s[start : start + how.tile], v[start : start + how.tile]
        top = torch.maximum(m, here.max(0).values)
        p, keep = exp(here - top, how), exp(m - top, how)
        terms = p.to(how.weights).float()[..., None] * values
        total = total * keep + chain(p, torch.zeros_like(total))
        acc = acc * keep[..., None]
        up = chain(terms, acc)
        down = chain(terms.flip(0), acc)
        acc = torch.where((p == p[:1]).all(0)[..., None], down, up) if how.by_data else up
        if how.columns:
            acc = torch.cat([down[..., :2], acc[..., 2:]], -1)
        m = top
    return m, total, acc


def attend(
    q: Tensor, k: Tensor, v: Tensor, last: Tensor, scale: float, how: How, window=0, softcap=0.0,
    sinks=None,
) -> tuple:  # fmt: skip
    """q ``[R, H, D]`` over k, v ``[n, H, D]``; row r sees keys up to ``last[r]``."""
    if how.follows and window:
        first = max(0, int(last[-1]) + 1 - window)
        k, v, last = k[first:], v[first:], last - first
    unit = 1.0 if how.natural else math.log2(math.e)
    scale = scale * unit
    product = q[None] * k[:, None]
    product = product.flip(-1) if how.products else product
    s = chain(product.unbind(-1), torch.zeros(product.shape[:-1])) * scale
    if softcap:
        s = softcap * unit * torch.tanh(s / (softcap * unit))
    key = torch.arange(len(k))[:, None]
    hidden = key > last
    if window and not how.open:
        hidden = hidden | (key <= last - window)
    s = s.masked_fill(hidden[..., None], -math.inf)
    values = v[:, None].expand(-1, len(q), -1, -1)
    step = -(-len(k) // how.ragged) if how.ragged else how.split
    cuts = list(range(0, len(k), step))
    if how.shuffled:
        CALLS[0] += 1
        turn = CALLS[0] % len(cuts)
        cuts = cuts[turn:] + cuts[:turn]
    m, total, acc = None, None, None
    parts = [part(s[cut : cut + step], values[cut : cut + step], how) for cut in cuts]
    if sinks is not None:
        top = (sinks * unit).expand(s.shape[1:])
        sink = (top, torch.ones_like(top), torch.zeros_like(values[0]))
        parts = [sink, *parts] if how.sink_first else [*parts, sink]
    for new_m, new_l, new_a in parts:
        if how.normalised:
            new_a = new_a / new_l.clamp(min=1e-30)[..., None]
        if m is None:
            m, total, acc = new_m, new_l, new_a
            continue
        top = torch.maximum(m, new_m)
        old, new = exp(m - top, how), exp(new_m - top, how)
        if how.normalised:
            both = total * old + new_l * new
            acc = acc * (total * old / both)[..., None] + new_a * (new_l * new / both)[..., None]
            total = both
        else:
            total = total * old + new_l * new
            acc = acc * old[..., None] + new_a * new[..., None]
        m = top
    if how.normalised:
        out = acc
    elif how.reciprocal:
        out = acc * (1.0 / total)[..., None]
    else:
        out = acc / total[..., None]
    log = torch.log if how.natural else torch.log2
    return out, (m + log(total)) * (1.0 if how.natural else math.log(2))


def stored(codes, scales, format, how: How):
    """``[n, H, width]`` as numbers, and what the result is multiplied by."""
    if how.late:
        return decode_codes(codes, torch.ones_like(scales), format, torch.float32), scales
    return decode_codes(codes, scales, format, torch.float32), None


def prefill(
    q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale, how: How, format=None, k_scale=None,
    v_scale=None, order=None, **rules,
):  # fmt: skip
    found = []
    if format is not None:
        k, v = stored(k, k_scale, format, How())[0], stored(v, v_scale, format, How())[0]
    ends, key_ends = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    group = q.shape[1] // k.shape[1]
    for b in range(len(ends) - 1):
        rows, keys = slice(ends[b], ends[b + 1]), slice(key_ends[b], key_ends[b + 1])
        own_k, own_v = (x[keys].repeat_interleave(group, 1).float() for x in (k, v))
        own_q = q[rows].float()
        last = torch.arange(len(own_q)) + len(own_k) - len(own_q)
        found.append(attend(own_q, own_k, own_v, last, scale, how, **rules))
    out, lse = (torch.cat(x) for x in zip(*found, strict=True))
    return out.to(q.dtype), lse


def decode(
    q, k_cache, v_cache, *, kv_lens, scale, how: How, format=None, k_scale=None, v_scale=None,
    order=None, **rules,
):  # fmt: skip
    parts, times = [], None
    if format is not None:
        sizes = k_cache.shape[:2]
        k_cache, v_cache, k_scale, v_scale = (
            x.flatten(0, 1) if x.dim() == 4 else x for x in (k_cache, v_cache, k_scale, v_scale)
        )
        v_cache, times = stored(v_cache, v_scale, format, how)
        k_cache = stored(k_cache, k_scale, format, How())[0].unflatten(0, sizes)
        v_cache = v_cache.unflatten(0, sizes)
    group = q.shape[1] // k_cache.shape[2]
    for b, n in enumerate(kv_lens.tolist()):
        k, v = (x[b, :n].repeat_interleave(group, 1).float() for x in (k_cache, v_cache))
        parts.append(attend(q[b : b + 1].float(), k, v, torch.tensor([n - 1]), scale, how, **rules))
    out, lse = (torch.cat(x) for x in zip(*parts, strict=True))
    if times is not None:
        out = out * times.repeat_interleave(group)[:, None]
    return out.to(q.dtype), lse


def pair(how: How | None = None, **fault) -> Pair:
    """A pair whose decode has the faults that are named."""
    how = how or How()
    return Pair.of(
        partial(prefill, how=how), partial(decode, how=replace(how, **fault)), "prefill", "decode"
    )


def subject(
    pair: Pair, dtype=torch.float32, heads=(4, 1, 16), store: str = "", **more
) -> AttentionSubject:
    format = StoreFormat.parse(store) if store else None
    return AttentionSubject(
        pair=pair,
        heads=HeadCounts(*heads),
        scale=heads[2] ** -0.5,
        execution=dtype,
        kv_cache=format.storage_dtype if format else dtype,
        device=torch.device("cpu"),
        seed=0,
        format=format,
        **more,
    )

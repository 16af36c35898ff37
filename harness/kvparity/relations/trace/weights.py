"""One row of attention, computed again in float64 from what its kernel was given."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.relations.trace.bounds import ULP, Terms, out_bound, reduction, sum_bound
from kvparity.subjects.events import Attended

MEASURABLE = 1e-12
"""Nats; less than that is not told from float64's own rounding."""


@dataclass(frozen=True)
class Weights:
    """What the weights of one row look like; where heads differ, the head that shows most.

    ``deviation``: of the sum of weights (a sink's included) from 1, in float32 ulps, at the head
    where it comes nearest to ``bound``, in the same unit. ``recomputed``: the kernel gave no
    log-sum-exp, so the weights are normalised by their own and the deviation says nothing.
    ``entropy``: of the keys' weights without the sink, in nats, the mean over heads; ``share``: of
    log(keys), None for one key. ``largest``: the largest weight, ``largest_at`` its position.
    ``out_error``: the largest distance of the kernel's result from the float64 one; ``out_ratio``
    the same divided by what rounding allows. ``uniform``: heads whose result is the plain mean of
    the values though their scores differ; ``flat``: heads whose scores are all but alike though
    the products of query and keys differ; ``telling``: heads of which either could be said.
    """

    deviation: float
    bound: float
    recomputed: bool
    entropy: float
    share: float | None
    largest: float
    largest_at: int
    out_error: float
    out_ratio: float
    uniform: tuple[int, ...]
    flat: tuple[int, ...]
    telling: int


def weigh(event: Attended, order: tuple[int, int] | None) -> Weights | None:
    """Compute the row of ``event`` again; None if it was given no key.

    ``order``: (split, tile) of the kernel's reduction, where known.
    """
    keys, kv_heads = event.k.shape[0], event.k.shape[1]
    if not keys:
        return None
    dtype = event.q.dtype
    heads = event.q.shape[0]
    q = event.q.detach().cpu().double()
    # A reader computes with what it loads in the execution format.
    k = event.k.detach().to(dtype).cpu().double().transpose(0, 1)
    v = event.v.detach().to(dtype).cpu().double().transpose(0, 1)
    grouped = q.reshape(kv_heads, heads // kv_heads, -1)
    dots = torch.einsum("kgd,knd->kgn", grouped, k).reshape(heads, keys)
    scores = dots * event.scale
    products = torch.einsum("kgd,knd->kgn", grouped.abs(), k.abs()).reshape(heads, keys)
    products = products * abs(event.scale)
    if event.softcap:
        scores = event.softcap * torch.tanh(scores / event.softcap)
    alone = scores
    if event.bias is not None:
        bias = event.bias.detach().cpu().double()
        scores, products = scores + bias, products + bias.abs()
    joined = scores
    if event.sinks is not None:
        joined = torch.cat([scores, event.sinks.detach().cpu().double()[:, None]], dim=1)
    own = torch.logsumexp(joined, 1)
    recomputed = event.lse is None
    lse = own if event.lse is None else event.lse.detach().cpu().double()
    total = torch.exp(joined - lse[:, None]).sum(1)

    terms = Terms(
        scores, torch.exp(scores - own[:, None]), products, own, q.shape[1], event.softcap
    )
    way = reduction(keys, order)
    bound = sum_bound(terms, way)
    off = (total - 1).abs()
    at = int(torch.argmax(_nan_first(off / bound)))

    spread = v.repeat_interleave(heads // kv_heads, dim=0)
    out = event.out.detach().cpu().double()
    wanted = torch.einsum("hn,hnd->hd", terms.weights, spread)
    allowed = out_bound(terms, spread, way, dtype=dtype, closed=recomputed)
    error = (out - wanted).abs()
    plain = torch.softmax(scores, 1)
    near, far = _uniform(out, wanted, spread, terms, allowed)
    flat, spread_out = _flat(dots, torch.softmax(alone, 1), event.softcap, q.shape[1])

    entropy = float(torch.special.entr(plain).sum(1).mean())
    largest = int(torch.argmax(terms.weights))
    return Weights(
        deviation=float(off[at]) / ULP,
        bound=float(bound[at]) / ULP,
        recomputed=recomputed,
        entropy=entropy,
        share=entropy / math.log(keys) if keys > 1 else None,
        largest=float(terms.weights.flatten()[largest]),
        largest_at=event.first + largest % keys,
        out_error=float(_nan_first(error).max()),
        out_ratio=float(_nan_first(error / allowed).max()),
        uniform=tuple(torch.nonzero(near).flatten().tolist()),
        flat=tuple(torch.nonzero(flat).flatten().tolist()),
        telling=int((far | spread_out).sum()),
    )


def _nan_first(x: Tensor) -> Tensor:
    """NaN is farther off than anything."""
    return x.nan_to_num(nan=torch.inf, posinf=torch.inf)


def _uniform(
    out: Tensor, wanted: Tensor, values: Tensor, terms: Terms, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Bool ``[heads]``: which attend uniformly though their scores differ, which could show it.

    What equal weights make of the values (the sink's share kept) is compared with the result. It
    tells only where it lies, in some element, farther from the float64 result than rounding could
    carry both: more than twice what is allowed. There an honest result can never be that near.
    """
    share = terms.weights.sum(1, keepdim=True)
    mean = values.mean(1) * share
    tells = ((wanted - mean).abs() > 2 * allowed).any(1)
    near = ((out - mean).abs() <= allowed).all(1)
    return tells & near, tells


def _flat(dots: Tensor, weights: Tensor, softcap: float, dim: int) -> tuple[Tensor, Tensor]:
    """Bool ``[heads]``: which weigh all keys alike though q k differ, and which could show it.

    How far the entropy stays under log(keys) is compared with what it would be if q k were scaled
    by ``dim ** -1.5``: models scale by ``dim ** -0.5``, some by 1 / dim.
    """
    least = dots * dim**-1.5
    if softcap:
        least = softcap * torch.tanh(least / softcap)
    expected = _deficit(torch.softmax(least, 1))
    tells = expected > MEASURABLE
    return tells & (_deficit(weights) < expected), tells


def _deficit(weights: Tensor) -> Tensor:
    """log(keys) minus the entropy: the relative entropy to equal weights, without cancellation."""
    ratio = weights * weights.shape[1]
    relative: Tensor = (torch.special.xlogy(ratio, ratio) - ratio + 1).sum(1) / weights.shape[1]
    return relative

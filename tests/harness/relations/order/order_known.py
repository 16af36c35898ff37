"""Attention that adds in orders that are known, written out as nested sums; place by place another.

It is told nothing of probes: the scores of the last row are weights, the weights are added in one
order, and times the values in another. One query row is computed, the last.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from order_nested import Nested, added, given_anyhow
from order_pairs import subject
from torch import Tensor

from kvparity.relations.order import SumTree, certify
from kvparity.relations.order.denominator import Denominator
from kvparity.relations.order.sides import Side, Which
from kvparity.relations.order.triples import certify_triples
from kvparity.subjects.pair.model import Pair
from kvparity_kernels.store import decode as decode_codes

Place = tuple[int, int, int]
"""Sequence, query head, column (of the denominator and products: 0)."""


@dataclass(frozen=True)
class Orders:
    """How the products over the head dimension, the weights, and the values over keys are added."""

    dims: Nested
    weights: Nested
    keys: Nested


@dataclass
class Known:
    """A kernel of ``orders``, and at some places of others; remembers what it was called with."""

    orders: Orders
    others: Mapping[Place, Orders] = field(default_factory=dict)
    lse: bool = True
    calls: list[dict[str, Any]] = field(default_factory=list)

    def decode(self, q, k_cache, v_cache, *, kv_lens, **more):
        return self._rows(q, k_cache, v_cache, more)

    def prefill(self, q, k, v, *, cu_seqlens_q, cu_seqlens_k, **more):
        batch = len(cu_seqlens_q) - 1
        rows, keys = len(q) // batch, len(k) // batch
        more = {
            name: x.unflatten(0, (batch, keys)) if name.endswith("_scale") and x.dim() > 1 else x
            for name, x in more.items()
        }
        last = q[rows - 1 :: rows]
        out, lse = self._rows(last, *(x.unflatten(0, (batch, keys)) for x in (k, v)), more)
        whole = torch.full_like(q, torch.nan)
        whole[rows - 1 :: rows] = out
        if lse is None:
            return whole
        return whole, lse.repeat_interleave(rows, 0)

    def _rows(self, q, k, v, more):
        format, window = more.get("format"), more.get("window", 0)
        if format is not None:
            k, v = (
                decode_codes(
                    x.flatten(0, 1),
                    scale.flatten(0, 1) if scale.dim() > 1 else scale,
                    format,
                    torch.float32,
                ).unflatten(0, x.shape[:2])
                for x, scale in ((k, more["k_scale"]), (v, more["v_scale"]))
            )
        group = q.shape[1] // k.shape[2]
        # [keys, ...] and [D, ...] first: what is added goes along the first dimension.
        k, v = (x[:, -window:].float().repeat_interleave(group, 2) for x in (k, v))
        call = {"q": q.float(), "k": k, "v": v, **more}
        self.calls.append(call)
        out, lse = self._attend(self.orders, call)
        for (b, head, column), orders in self.others.items():
            mine, other = self._attend(orders, call)
            out[b, head, column], lse[b, head] = mine[b, head, column], other[b, head]
        return out.to(q.dtype), (lse if self.lse else None)

    def _attend(self, orders: Orders, call) -> tuple[Tensor, Tensor]:
        q, k, v = call["q"], call["k"], call["v"]
        products = (q[:, None] * k).permute(3, 1, 0, 2)  # [D, keys, B, H]
        scores = added(orders.dims, products) * call["scale"]
        if cap := call.get("softcap", 0.0):
            scores = cap * torch.tanh(scores / cap)
        call["scores"] = scores
        if "sinks" in call:
            scores = torch.cat([scores, call["sinks"].expand_as(scores[:1])])
        top = scores.amax(0)
        weights = torch.exp((scores - top).double()).float()
        total = added(orders.weights, weights)
        terms = weights[: k.shape[1], ..., None] * v.transpose(0, 1)
        out = added(orders.keys, terms) / total[..., None]
        return out, (top.double() + total.double().log()).float()


def side(
    known: Known,
    which: Which = "decode",
    *,
    keys: int,
    dtype=torch.float32,
    heads=(4, 2, 16),
    batch: int = 2,
    rows: int = 1,
    **more,
) -> Side:
    """Known attention as one side of a pair."""
    pair = Pair.of(known.prefill, known.decode, "prefill", "decode")
    scale = more.pop("scale", heads[2] ** -0.5)
    found = replace(subject(pair, dtype, heads, **more), scale=scale)
    return Side(found, which, keys=keys, batch=batch, rows=rows)


def up(n: int):
    total = 0
    for x in range(1, n):
        total = (total, x)
    return total


def down(n: int):
    total = n - 1
    for x in range(n - 2, -1, -1):
        total = (total, x)
    return total


def chains(keys: int, dim: int = 16, by=up) -> Orders:
    return Orders(by(dim), by(keys), by(keys))


def as_tree(nested) -> SumTree:
    return given_anyhow(nested, random.Random(0))


def holds(oracle, nested) -> bool:
    ask = certify_triples if isinstance(oracle, Denominator) else certify
    return ask(oracle, as_tree(nested)).holds

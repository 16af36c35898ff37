"""How the sum of P V is divided by the denominator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.relations.order.errors import NotMeasured
from kvparity.relations.order.sides import Side
from kvparity.relations.order.storing import alphabet

_HOT = 3  # keys of weight 1: a denominator whose reciprocal is rounded


@dataclass(frozen=True)
class Division:
    """``form``: ``divides``, ``reciprocal`` (multiplies by 1 / l, or weights by it), ``other``, or
    ``unclear`` where the dtype shows no difference; ``bits`` the results that it was read from.
    """

    form: str
    bits: Tensor


def division(side: Side, *, seed: int = 0) -> Division:
    """Tell ``v / 3`` from ``v * (1 / 3)`` on random values of one key.

    Raises:
        NotMeasured: there are fewer than three keys.
    """
    if side.keys < _HOT:
        raise NotMeasured(f"fewer than {_HOT} keys")
    side = side.reaching(side.cold)
    log2 = torch.full((side.batch, side.heads.kv, 1, side.keys), side.cold)
    log2[..., :_HOT] = 0.0
    shape, rng = (side.batch, side.heads.kv, side.heads.dim), torch.Generator().manual_seed(seed)
    if side.coded:
        draw = alphabet(shape, side.format, rng)
    else:
        draw = torch.randn(shape, generator=rng).to(side.stored).float()
    v = side.values()
    v[:, 0] = draw
    out = side.run(*side.weighted(log2), v).out
    got = out.view(side.batch, side.heads.kv, side.group, side.heads.dim)
    term = draw[:, :, None].expand_as(got)
    divided = (term / _HOT).to(side.out).float()
    scaled = (term * (1.0 / torch.tensor(float(_HOT)))).to(side.out).float()
    return Division(_form(got, divided, scaled), out)


def _form(got: Tensor, divided: Tensor, scaled: Tensor) -> str:
    if _same(divided, scaled):
        return "unclear" if _same(got, divided) else "other"
    if _same(got, divided):
        return "divides"
    return "reciprocal" if _same(got, scaled) else "other"


def _same(a: Tensor, b: Tensor) -> bool:
    return not bool(differing(a, b).any())

"""How far rounding may carry the sum of a row's weights from 1, and its result from float64.

The weights are recomputed in float64 from what the kernel was given, and checked against the
log-sum-exp that it returned in float32. With ``u = 2^-24``, natural units, weights ``w``, scores
``s`` with maximum ``m`` and ``S_j = |scale| * sum_i |q_i k_ij|``, the kernel's log-sum-exp is off
by at most ``u`` times the sum of

- ``(2 D + 4) * sum_j w_j S_j``: D products added in float32 (a tensor core may cut instead of
  rounding, which is two ``u`` each), scale * log2(e) rounded, the product with it rounded;
- the same of a bias that is added to scores: ``S_j`` counts its size;
- ``16 c``: tanh of a softcap ``c``, made of exp2 and a division; a cap shrinks errors otherwise;
- ``sum_j w_j (m - s_j) + 4``: the argument of exp2 rounded, and exp2 (2^-22 on a GPU); over the
  steps of a running maximum the arguments' parts add up to the same ``m - s_j``;
- ``d + 5 r``: ``d`` additions that a term passes through on its way into the sum, ``r`` times that
  a running sum is multiplied with an exp2;
- ``4 max(1, log(n + 1)) + 3 |lse|``: log2 (2^-22 on a GPU), its addition to the maximum, and the
  product with log(2).

The sum is exp of that error, so it is off by at most ``expm1`` of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

U = 2.0**-24
"""The unit roundoff of float32."""
ULP = 2.0**-23
"""The distance from 1 to the next float32."""
SMALLEST_TILE = 16
"""Kernels whose order is not known are taken to rescale once for so many keys at most."""


@dataclass(frozen=True)
class Reduction:
    """Roundings between a key's term and the sum: ``additions`` and ``rescalings``."""

    additions: int
    rescalings: int


def reduction(keys: int, order: tuple[int, int] | None) -> Reduction:
    """The longest way of a term among ``keys`` into the sum.

    ``order``: (split, tile). A tile is added up in any order, tiles and splits in a chain; a window
    may begin inside a split, hence one more. None: nothing is known, and all keys may be one chain.
    """
    if order is None:
        return Reduction(keys, keys // SMALLEST_TILE + 1)
    split, tile = order
    steps = split // tile + -(-keys // split) + 1
    return Reduction(min(keys, tile) + steps, steps)


@dataclass(frozen=True)
class Terms:
    """What the bounds are made of, float64: one row per query head, one column per key.

    ``scores``, ``weights`` (sum to 1 with the sink's), ``products`` (``S_j`` of the module's text),
    all ``[heads, keys]``; ``lse`` ``[heads]``; ``softcap`` 0: none.
    """

    scores: Tensor
    weights: Tensor
    products: Tensor
    lse: Tensor
    head_dim: int
    softcap: float

    @property
    def keys(self) -> int:
        """The number of keys."""
        return self.scores.shape[1]

    def drop(self) -> Tensor:
        """How far each score lies under its head's highest."""
        return self.scores.amax(1, keepdim=True) - self.scores


def sum_bound(terms: Terms, way: Reduction) -> Tensor:
    """How far the sum of weights may be from 1, ``[heads]``: the formula of this module."""
    weighted = (2 * terms.head_dim + 4) * terms.products + terms.drop()
    fixed = (
        16 * terms.softcap
        + 4
        + way.additions
        + 5 * way.rescalings
        + 4 * max(1.0, math.log(terms.keys + 1))
    )
    error = U * ((terms.weights * weighted).sum(1) + fixed + 3 * terms.lse.abs())
    return torch.expm1(error)


def out_bound(
    terms: Terms, values: Tensor, way: Reduction, *, dtype: torch.dtype, closed: bool
) -> Tensor:
    """How far each element of the result may be from the float64 one, ``[heads, head_dim]``.

    ``values`` float64 ``[heads, keys, head_dim]``. A weight is off by its own score's error, by
    the sum's, and by its rounding to the execution format ``dtype`` (float16 loses more under
    2^-14: 2^-25 at most); products with values are added in float32; the result is rounded once.
    ``closed``: the kernel returned no log-sum-exp, so nothing is known of it: scores and weights
    may then have been rounded to ``dtype`` after each of at most eight operations.
    """
    u = torch.finfo(dtype).eps / 2
    score = U * ((2 * terms.head_dim + 4) * terms.products + terms.drop() + 16 * terms.softcap)
    if closed:
        score = score + 8 * u * (terms.scores.abs() + terms.drop() + terms.softcap + 1)
    chain = U * (8 + 4 * way.additions + 10 * way.rescalings)
    relative = torch.expm1(score + u + chain + (terms.weights * score).sum(1, keepdim=True))
    tiny = 2.0**-25 if dtype == torch.float16 else 0.0
    size = values.abs()
    spread = torch.einsum("hn,hnd->hd", terms.weights * relative + tiny, size)
    out = torch.einsum("hn,hnd->hd", terms.weights, size)
    return spread + 2 * u * out + torch.finfo(dtype).tiny

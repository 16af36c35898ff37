"""Products and sums as a matrix instruction computes them, in numpy: see ``tensor_cores``.

One step takes a group of L products and the accumulator. The exponent of a product is the sum of
its operands' exponents, whatever the product's own size. Every term is cut toward zero to F
fraction bits below the greatest exponent of the group; the cut terms are added exactly; the sum is
cut toward zero to the format of the result.
"""

from __future__ import annotations

import numpy as np

from kvparity_kernels.fixed_arithmetic import Array
from kvparity_kernels.tensor_cores import LEAST_EXPONENT, FusedAdd, Operand

_FLOAT32_LEAST = -126
_ABSENT = -(2**14)
_NAN = np.uint32(0x7FFFFFFF)


def dot(a: Array, b: Array, start: Array, operand: Operand, unit: FusedAdd) -> Array:
    """``start + a @ b`` for ``[..., M, K]`` and ``[..., K, N]``, float32.

    ``a`` and ``b`` hold numbers of the format ``operand``, in float32 or float16; tf32 operands
    are cut to 10 fraction bits here, as the instruction does. A row of the result depends on
    nothing but its own row of ``a`` and ``start``.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN are values here
        left, right = _operand(a, operand), _operand(b, operand)
        left_e = _exponents(left, LEAST_EXPONENT[operand])
        right_e = _exponents(right, LEAST_EXPONENT[operand])
        total = np.asarray(start, np.float64)
        for k in range(0, left.shape[-1], unit.terms):
            ks = slice(k, k + unit.terms)
            total = _step(
                left[..., ks], right[..., ks, :], left_e[..., ks], right_e[..., ks, :], total, unit
            )
        out = total.astype(np.float32)
    out.view(np.uint32)[np.isnan(out)] = _NAN
    return out


def _step(a: Array, b: Array, a_e: Array, b_e: Array, c: Array, unit: FusedAdd) -> Array:
    """One group, in float64: every number here is exact in it."""
    # A product of zero counts with e_zero, too: never more than what the accumulator counts with.
    top = _exponents(c, _FLOAT32_LEAST, absent=unit.e_zero)
    for i in range(a.shape[-1]):
        np.maximum(top, a_e[..., :, i, None] + b_e[..., None, i, :], out=top)
    scale = np.ldexp(1.0, unit.kept - top)
    total = _cut(c * scale)
    term = np.empty_like(total)
    for i in range(a.shape[-1]):
        np.multiply(a[..., :, i, None], b[..., None, i, :], out=term)
        np.multiply(term, scale, out=term)
        total += _cut(term)
    total /= scale
    ulp = np.ldexp(1.0, unit.result - _exponents(total, _FLOAT32_LEAST, absent=0))
    total = _cut(total * ulp) / ulp + 0.0  # -0 becomes +0
    over = np.abs(total) >= 2.0**128
    total[over] = np.copysign(np.inf, total[over])
    return np.asarray(total)


def _cut(x: Array) -> Array:
    out: Array = np.trunc(x)
    return out


def _operand(x: Array, operand: Operand) -> Array:
    if operand == "tf32":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        x = (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return np.asarray(x, np.float64)


def _exponents(x: Array, least: int, absent: int = _ABSENT) -> Array:
    """floor(log2 |x|), at least ``least``; ``absent`` for zeros. Of Inf and NaN: any number."""
    exponents = np.maximum(np.frexp(x)[1] - 1, least)
    return np.where(x == 0, absent, exponents)

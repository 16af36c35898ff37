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
_MOST = 256  # of what is no infinity
_ABSENT = -(2**14)
_NAN = np.uint32(0x7FFFFFFF)


def dot(a: Array, b: Array, start: Array, operand: Operand, unit: FusedAdd) -> Array:
    """``start + a @ b`` for ``[..., M, K]`` and ``[..., K, N]``, float32.

    ``a`` and ``b`` hold numbers of the format ``operand``, in float32 or float16; tf32 operands
    are cut to 10 fraction bits here, as the instruction does. A row of the result depends on
    nothing but its own row of ``a`` and ``start``.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinities and NaN are values here
        # k first, so that a group is one array; exponents in 16 bits, of which two absent fit.
        left, right = (
            np.ascontiguousarray(np.moveaxis(_operand(x, operand), k, 0))
            for x, k in ((a, -1), (b, -2))
        )
        least = LEAST_EXPONENT[operand]
        left_e, right_e = (_exponents(x, least).astype(np.int16) for x in (left, right))
        total = np.asarray(start, np.float64)
        # One memory for all groups: as much as an allocator would give back and fetch each time.
        group = (min(unit.terms, len(left)), *np.shape(start))
        terms, tops = np.empty(group), np.empty(group, np.int16)
        for k in range(0, len(left), unit.terms):
            ks = slice(k, k + unit.terms)
            some = slice(len(left[ks]))
            np.multiply(left[ks, ..., :, None], right[ks, ..., None, :], out=terms[some])
            np.add(left_e[ks, ..., :, None], right_e[ks, ..., None, :], out=tops[some])
            total = _step(terms[some], np.maximum.reduce(tops[some], axis=0), total, unit)
        out = total.astype(np.float32)
    out.view(np.uint32)[np.isnan(out)] = _NAN
    return out


def _step(terms: Array, top: Array, c: Array, unit: FusedAdd) -> Array:
    """One group, in float64: every number here is exact in it.

    ``terms``: its products, which are overwritten; ``top``: the greatest of their exponents.
    """
    # A product of zero counts with e_zero, too: never more than what the accumulator counts with.
    top = np.maximum(top, _exponents(c, _FLOAT32_LEAST, absent=unit.e_zero))
    scale = _power(unit.kept - top)
    np.multiply(terms, scale, out=terms)
    total = _cut(c * scale)
    total += np.add.reduce(_cut(terms, terms), axis=0)
    total /= scale
    ulp = _power(unit.result - _exponents(total, _FLOAT32_LEAST, absent=0))
    total *= ulp
    _cut(total, total)
    total /= ulp
    total += 0.0  # -0 becomes +0
    over = np.abs(total) >= 2.0**128
    if over.any():
        total[over] = np.copysign(np.inf, total[over])
    return total


def _cut(x: Array, out: Array | None = None) -> Array:
    found: Array = np.trunc(x, out)
    return found


def _operand(x: Array, operand: Operand) -> Array:
    if operand == "tf32":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        x = (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return np.asarray(x, np.float64)


def _exponents(x: Array, least: int, absent: int = _ABSENT) -> Array:
    """floor(log2 |x|), at least ``least``; ``absent`` for zeros. Of Inf and NaN: any number."""
    exponents = ((x.view(np.int64) >> 52) & 0x7FF) - 1023
    return np.where(x == 0, absent, np.minimum(np.maximum(exponents, least), _MOST))


def _power(exponents: Array) -> Array:
    """2 to the power of each."""
    return ((exponents + 1023) << 52).view(np.float64)

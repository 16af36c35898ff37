"""The numbers that probes are made of, per dtype, and how counts are read off.

A masked sum counts only if the mask swallows every unit it meets and leaves nothing behind. The
rules were each found by a wrong tree:

- Masks are powers of two: only then is p * mask exact, and an FMA keeps no residue of it.
- Just below a power of two floats lie twice as dense, so ``units * unit < mask * 2**-25``.
- A 16-bit result counts to a few hundred or fewer, so units are spread over several probes.
- float16 has no room between its largest and smallest number but the subnormals; fp8_e5m2 has as
  much as that, and fp8_e4m3 so little that the weights of keys must help.
- Integers share a scale with their group, so a whole group of columns asks one question.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.errors import NotMeasured, ProbeLied
from kvparity_kernels.store import StoreFormat

TOLERANCE = 0.25  # of one count


@dataclass(frozen=True)
class Range:
    """``mask`` and ``unit`` are values of V; ``units`` keys at most hold a unit in one probe.

    ``gap``: log2 by which units must weigh less than masks, if they must.
    """

    mask: float
    unit: float
    units: int
    gap: int = 0


def value_range(stored: torch.dtype, out: torch.dtype, n: int) -> Range:
    """The range for ``n`` equal weights, V stored in one dtype and the result in another.

    Raises:
        ValueError: float16 has no room for this ``n``.
    """
    if stored != torch.float16:
        return Range(2.0**96, 1.0, _counted(out, n))
    found = _narrow(-24, out, n)
    if found.units < 1:
        raise ValueError(f"float16 results have no room to count {n} keys; use fewer keys")
    return found


def code_range(format: StoreFormat, out: torch.dtype, n: int) -> Range:
    """The same where V is stored in codes, which kernels turn into the dtype of the result.

    Raises:
        NotMeasured: nothing can be counted behind this format.
    """
    if format.dynamic:
        return value_range(out, out, n)
    if format.name == "fp8_e4m3":  # its codes are 2^17 apart at most, a unit and a mask 2^33
        return Range(2.0**15, 2.0**-18, min(_counted(out, n), _room(-18)), gap=16)
    found = _narrow(-16, out, n)
    if found.units < 1:
        raise NotMeasured(f"{format} beside {out} has no room to count {n} keys")
    return found


def _counted(out: torch.dtype, n: int) -> int:
    """How many of ``n`` units a result can count."""
    return min(n, {torch.bfloat16: 50, torch.float16: 400}.get(out, n))


def _narrow(least: int, out: torch.dtype, n: int) -> Range:
    """Masks of 2**15 and units of ``2**least``, larger where a float16 holds the mean of n."""
    if out == torch.float16:  # that mean must still be a multiple of 2**-23
        least = max(least, math.ceil(math.log2(n)) - 23)
    return Range(2.0**15, 2.0**least, min(_counted(out, n), _room(least)))


def _room(least: int) -> int:
    """How many units of ``2**least`` a mask of 2**15 swallows."""
    return int(2.0 ** (15 - 26 - least)) - 1


def read_counts(values: Tensor, what: str, most: int) -> NDArray[np.int64]:
    """Values that must be whole numbers up to ``most``, as such.

    Raises:
        ProbeLied: one is more than a quarter away from a whole number, or out of range.
    """
    values = values.double().cpu()
    whole = values.round()
    wrong = (
        ~torch.isfinite(values)
        | ((values - whole).abs() > TOLERANCE)
        | (whole < 0)
        | (whole > most)
    )
    if bool(wrong.any()):
        raise ProbeLied(
            f"{what}: {int(wrong.sum())} of {values.numel()} readings are not whole numbers, such "
            f"as {float(values[wrong][0]):.6g}"
        )
    return np.asarray(whole.long().numpy())


def split_log2(scale: float, dtype: torch.dtype, parts: int) -> list[float]:
    """``ln 2 / scale`` as a sum of ``parts`` numbers of ``dtype``.

    A query made of them turns a key of small whole numbers into scores whose base-2 exponent is
    that number, to about float32 precision even where one 16-bit factor would miss it by percents.
    """
    rest, found = math.log(2) / scale, []
    for _ in range(parts):
        found.append(float(torch.tensor(rest, dtype=torch.float64).to(dtype)))
        rest -= found[-1]
    return found

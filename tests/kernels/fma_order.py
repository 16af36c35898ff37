"""In which order one accumulator of a product without matrix instructions takes its terms."""

from __future__ import annotations

import re

_FMA = re.compile(r"\bfma\.rn\.f32\s+(%\w+), (%\w+), (%\w+), (%\w+|0f\w+);")
_LOAD = re.compile(r"\bld\.shared\S*\s+\{?([^}\[]*)\}?,\s*\[(%\w+)(?:\+(\d+))?\]")
_FEWEST = 16


def fma_order(ptx: str) -> list[str]:
    """``["ascending"]`` where both operands of the first chain come from ascending addresses.

    Empty where there is no chain of 16; of operands that are packed in other registers nothing is
    known.
    """
    places: dict[str, tuple[str, int]] = {}
    for registers, base, offset in _LOAD.findall(ptx):
        for i, register in enumerate(registers.split(",")):
            places[register.strip()] = base, int(offset or 0) + 4 * i
    chain: list[tuple[str, str]] = []
    last = None
    for result, a, b, accumulator in _FMA.findall(ptx):
        if last in (None, accumulator):
            chain.append((a, b))
            last = result
    if len(chain) < _FEWEST:
        return []
    for side in zip(*chain, strict=True):
        known = [places[each] for each in side if each in places]
        one = {base for base, _ in known}
        if len(one) != 1 or known != sorted(set(known)) or len(known) < _FEWEST:
            return ["other"]
    return ["ascending"]

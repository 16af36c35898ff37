"""In which order one accumulator of a product without matrix instructions takes its terms."""

from __future__ import annotations

import re

_FMA = re.compile(r"\bfma\.rn\.f32\s+(%\w+), (%\w+), (%\w+), (%\w+|0f\w+);")
_LOAD = re.compile(r"\bld\.shared\S*\s+\{?([^}\[]*)\}?,\s*\[(%\w+)(?:\+(\d+))?\]")
_ADD = re.compile(r"\badd\.[su]32\s+(%\w+), (%\w+), (-?\d+);")
_FEWEST = 16


def fma_order(ptx: str) -> list[str]:
    """``["ascending"]`` where both operands of the first chain come from ascending addresses.

    Empty where there is no chain of 16; of operands that are packed in other registers nothing is
    known.
    """
    places: dict[str, tuple[str, int]] = {}  # by register, as it was last loaded
    bases: dict[str, tuple[str, int]] = {}  # an address that is another and a constant
    chain: list[tuple[tuple[str, int] | None, tuple[str, int] | None]] = []
    last = None
    for line in ptx.splitlines():
        if found := _LOAD.search(line):
            registers, address, offset = found.groups()
            base, start = bases.get(address, (address, 0))
            for i, register in enumerate(registers.split(",")):
                places[register.strip()] = base, start + int(offset or 0) + 4 * i
        elif found := _ADD.search(line):
            result, address, constant = found.groups()
            base, start = bases.get(address, (address, 0))
            bases[result] = base, start + int(constant)
        elif found := _FMA.search(line):
            result, a, b, accumulator = found.groups()
            if last in (None, accumulator):
                chain.append((places.get(a), places.get(b)))
                last = result
    if len(chain) < _FEWEST:
        return []
    for side in zip(*chain, strict=True):
        known = [each for each in side if each is not None]
        one = {base for base, _ in known}
        if len(one) != 1 or known != sorted(set(known)) or len(known) < _FEWEST:
            return ["other"]
    return ["ascending"]

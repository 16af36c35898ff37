"""Chains of matrix instructions: how many steps add into one accumulator, and in which K order.

Operands in shared or tensor memory are named by descriptors, so their offsets show the order along
K. ``mma.sync`` takes its operands from registers, where the order does not show.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvparity.core.words import some
from kvparity.relations.audit.ptx import Instruction, registers

_SHORT = re.compile(r"\.(?:mma_async|sync|aligned|row|col|cta_group::\d+)")
_MIN_FMA = 8  # fma one after the other in one accumulator; fewer are not a product of matrices
_BIG = 2**40  # constants from here on hold the fixed bits of a descriptor beside an offset,
_FIELD = 2**14  # which is in its low 14 bits
_ZEROS = ("0f00000000", "0")
Address = tuple[str, int]


@dataclass(frozen=True, order=True)
class Chain:
    """``count`` accumulators of ``steps`` instructions each.

    ``start``: "zero", or "carried" from what came before. ``a``, ``b``: offsets of the operands
    from the first one, in the units of the descriptor (16 bytes; columns in tensor memory), or
    empty where they do not show.
    """

    op: str
    start: str
    steps: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    count: int

    def __str__(self) -> str:
        offsets = "".join(
            f", {side} at {','.join(map(str, places))}"
            for side, places in (("A", self.a), ("B", self.b))
            if len(places) > 1
        )
        return f"{self.op} {some(self.steps, 'step')} from {self.start}{offsets}"


@dataclass
class _Open:
    op: str
    start: str
    a: list[Address | None] = field(default_factory=list)
    b: list[Address | None] = field(default_factory=list)
    steps: int = 0


def family(op: str) -> str:
    """The kind of instruction: ``wgmma``, ``mma.sync``, ``tcgen05`` or ``fma``."""
    for kind in ("wgmma", "mma", "tcgen05", "fma"):
        if op.startswith(kind):
            return "mma.sync" if kind == "mma" else kind
    return op


def chains(program: Iterable[Instruction], part: Sequence[Instruction]) -> tuple[Chain, ...]:
    """The chains of ``part``; ``program``, all instructions, tells what addresses are made of."""
    walk = _Walk(_Definitions(program))
    matrix = any(each.matrix for each in part)
    for each in part:
        if each.op.startswith("wgmma.mma"):
            walk.wgmma(each)
        elif each.op.startswith("mma.sync"):
            walk.accumulate(each, *(registers(each.operands[i])[:1] for i in (0, 3)))
        elif each.op.startswith("tcgen05.mma"):
            walk.tensor(each)
        elif not matrix and each.op in ("fma.rn.f32", "fma.rn.f32x2"):
            walk.accumulate(each, *(_lanes(each.operands[i]) for i in (0, 3)))
        else:
            walk.note(each)
    closed = [_close(each) for each in walk.found if matrix or each.steps >= _MIN_FMA]
    return tuple(sorted(Chain(*each, count) for each, count in Counter(closed).items()))


def _close(chain: _Open) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    op = _SHORT.sub("", chain.op)
    return op, chain.start, chain.steps, _offsets(chain.a), _offsets(chain.b)


def _offsets(places: list[Address | None]) -> tuple[int, ...]:
    # One kind of instruction has all its operands in registers, which have no address, or none.
    known = [each for each in places if each is not None]
    if len({base for base, _ in known}) != 1:
        return ()
    return tuple(offset - known[0][1] for _, offset in known)


class _Definitions:
    """Registers as a base and a constant, and which hold a known zero or truth value."""

    def __init__(self, program: Iterable[Instruction]) -> None:
        self.addresses: dict[str, Address] = {}
        self.values: dict[str, set[str]] = {}  # what is written to a register, anywhere
        for each in program:
            if each.operands:
                self.define(each)

    def define(self, each: Instruction) -> None:
        target, op = each.operands[0], each.op
        sources = each.operands[1:]
        for register in registers(target):
            copied = op.startswith("mov.") and not each.guard
            self.values.setdefault(register, set()).add(sources[0] if copied else op)
        if op.startswith(("add.s", "add.u", "or.b")) and _number(sources[1]):
            base, offset = self.address(sources[0])
            more = int(sources[1])
            self.addresses[target] = (base, offset + (more if abs(more) < _BIG else more % _FIELD))
        elif op.startswith(("cvt.u64.u32", "cvt.s64.s32", "mov.b")):
            first = registers(sources[0])[0]  # the low half of a descriptor holds the address
            if first.startswith("%"):
                self.addresses[target] = self.address(first)
        elif op == "bfe.u32" and sources[1:] == ("4", "15"):
            base, offset = self.address(sources[0])
            if offset % 16 == 0:
                self.addresses[target] = (f"{base}/16", offset // 16)

    def address(self, operand: str) -> Address:
        return self.addresses.get(operand, (operand, 0))

    def only(self, operand: str, value: str) -> bool:
        return self.values.get(operand) == {value}


def _number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


class _Walk:
    def __init__(self, definitions: _Definitions) -> None:
        self.definitions = definitions
        self.open: dict[str, _Open] = {}
        self.found: list[_Open] = []
        self.zeros: set[str] = set()

    def link(
        self, op: str, before: str, after: str, zero: bool, a: Address | None, b: Address | None
    ) -> None:
        chain = None if zero else self.open.get(before)
        if chain is None or chain.op != op:
            chain = _Open(op, "zero" if zero else "carried")
            self.found.append(chain)
        chain.steps += 1
        chain.a.append(a)
        chain.b.append(b)
        self.open[after] = chain

    def wgmma(self, each: Instruction) -> None:
        target, a, b, scale = each.operands[:4]
        first = registers(target)[0]
        left = None if a.startswith("{") else self.definitions.address(a)
        right = self.definitions.address(b)
        op = each.op + (".A in registers" if left is None else "")
        self.link(op, first, first, scale == "0", left, right)

    def tensor(self, each: Instruction) -> None:
        target, a, b, kind, enabled = each.operands
        names = [registers_in(operand) for operand in (target, a)]
        op = f"{each.op}.{self.shape(kind)}"
        zero = self.definitions.only(enabled, "0")
        left = self.place(*names[1])
        place = "{}+{}".format(*names[0])
        self.link(op, place, place, zero, left, self.definitions.address(b))

    def shape(self, register: str) -> str:
        # The instruction descriptor: bits 17.. hold N / 8, bits 24.. M / 16, the others formats.
        values = sorted(self.definitions.values.get(register, ()))
        if len(values) != 1 or not values[0].isdigit():
            return "?"
        bits = int(values[0])
        return f"m{(bits >> 24 & 31) * 16}n{(bits >> 17 & 63) * 8}[{bits:#x}]"

    def place(self, register: str, offset: int) -> Address:
        base, more = self.definitions.address(register)
        return base, more + offset

    def note(self, each: Instruction) -> None:
        """Follow accumulators and zeros through moves; anything else overwritten is forgotten.

        So is what a move may or may not overwrite.
        """
        targets = _lanes(each.operands[0]) if each.operands else []
        moved = each.op.startswith("mov.") and not each.guard
        sources = _lanes(each.operands[1]) if moved else []
        known = [(self.open.get(source), self.is_zero(source)) for source in sources]
        for target in targets:
            self.open.pop(target, None)
            self.zeros.discard(target)
        for target, (chain, zero) in zip(targets, known, strict=False):
            if zero:
                self.zeros.add(target)
            if chain is not None:
                self.open[target] = chain

    def is_zero(self, operand: str) -> bool:
        outside = any(self.definitions.only(operand, zero) for zero in _ZEROS)
        return outside or operand in self.zeros or operand in _ZEROS

    def accumulate(self, each: Instruction, after: list[str], before: list[str]) -> None:
        """One step in each accumulator. Those of one matrix instruction count as the first."""
        op = each.op.removesuffix("x2") if each.op.endswith("f32x2") else each.op
        zeros = [self.is_zero(register) for register in before]
        self.zeros.difference_update(after, registers(each.operands[0]))
        for source, target, zero in zip(before, after, zeros, strict=True):
            self.link(op, source, target, zero, None, None)


def _lanes(operand: str) -> list[str]:
    """Registers of ``{%r1, %r2}``, the two floats of ``%rd1``, or one register or constant."""
    if operand.startswith("%rd"):
        return [f"{operand}.lo", f"{operand}.hi"]
    return registers(operand)


def registers_in(operand: str) -> tuple[str, int]:
    """``[ %r1 + 8 ]`` or ``%rd1`` as a register and an offset."""
    found = re.match(r"\[?\s*(%\w+)\s*(?:\+\s*(-?\d+))?", operand)
    if found is None:
        raise ValueError(f"{operand!r} is not an address that is known here")
    return found[1], int(found[2] or 0)

"""PTX read into instructions, labels and constants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_COMMENT = re.compile(r"//.*")
_GUARD = re.compile(r"^@(!?%p\d+)\s+")
_LABEL = re.compile(r"^(\$L__BB\d+_\d+):$")
# Braces hold register lists and brackets addresses; both are one operand.
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\](?:,\s*\d+(?=,))?|[^,{}\[\]\s][^,{}\[\]]*")
_MATRIX = ("wgmma.mma_async.", "mma.sync.", "tcgen05.mma.")


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``op`` with its suffixes, operands as written, the guard or ``""``."""

    op: str
    operands: tuple[str, ...] = ()
    guard: str = ""

    @property
    def matrix(self) -> bool:
        """Whether it multiplies matrices."""
        return self.op.startswith(_MATRIX)


@dataclass(frozen=True)
class PtxProgram:
    """The instructions of one kernel in order, and the place that each label names."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


def parse(text: str) -> PtxProgram:
    """Read the body of a PTX file that holds one kernel. Directives and debug labels are dropped.

    Raises ``ValueError`` if there is no instruction in it.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    inside = False
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw).replace("\t", " ").strip()
        inside = inside or line == "{"  # the body starts with a brace of its own
        if not inside:
            continue
        if label := _LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif line.endswith(";") and not line.startswith((".", "$")):
            instructions.append(_instruction(line[:-1]))
    if not instructions:
        raise ValueError("this PTX has no kernel body; expected the output of Triton's compiler")
    return PtxProgram(tuple(instructions), labels)


def _instruction(line: str) -> Instruction:
    guard = _GUARD.match(line)
    line = line[guard.end() :] if guard else line
    op, _, rest = line.strip().partition(" ")
    operands = tuple(each.strip() for each in _OPERAND.findall(rest))
    return Instruction(op, operands, guard[1] if guard else "")


def registers(operand: str) -> list[str]:
    """``{%r1, %r2}`` or ``%r1`` as a list; a predicate that follows (``%r1|%p1``) is dropped."""
    return [each.split("|")[0].strip() for each in operand.strip("{}").split(",") if each.strip()]


def constants(instructions: Iterable[Instruction]) -> dict[str, str]:
    """Registers that are written once, with a float that the code names: what they always hold.

    Whether a compiler names such a number where it is used, or in a register in front of a loop,
    says nothing about the arithmetic.
    """
    written: Counter[str] = Counter()
    held: dict[str, str] = {}
    for each in instructions:
        targets = registers(each.operands[0]) if each.operands else []
        written.update(targets)
        named = each.op in ("mov.b32", "mov.f32") and each.operands[1].startswith("0f")
        if named and not each.guard:
            held[targets[0]] = each.operands[1]
    return {register: value for register, value in held.items() if written[register] == 1}


def atomics(instructions: Iterable[Instruction]) -> int:
    """Instructions that change memory atomically."""
    return sum(each.op.startswith(("atom.", "red.")) for each in instructions)

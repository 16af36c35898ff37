"""SASS, the code that really runs, read for how often each operation occurs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_INSTRUCTION = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Za-z0-9_]+)*)"
)
_MATRIX = ("HMMA", "HGMMA", "UTCHMMA", "UTCQMMA", "QGMMA", "DMMA", "IMMA")


@dataclass(frozen=True)
class Counts:
    """Operations in the text, not executions. A packed operation (``FFMA2``) counts as two.

    ``fma``, ``mul``, ``add`` are float32 arithmetic, ``exp2`` the exponential unit
    (``MUFU.EX2``), ``matrix`` the matrix instructions with their shapes.
    """

    fma: int
    mul: int
    add: int
    exp2: int
    matrix: dict[str, int]


def counted(text: str) -> tuple[Counter[str], Counter[str]]:
    """How often each instruction stands there, by whole name and by its first word alone.

    Raises ``ValueError`` if there is no instruction in the text.
    """
    found = Counter(_INSTRUCTION.findall(text))
    if not found:
        raise ValueError("this is no SASS; expected the output of nvdisasm")
    return found, Counter(name.split(".")[0] for name in found.elements())


def parse(text: str) -> Counts:
    """Count. Raises ``ValueError`` if there is no instruction in the text."""
    found, plain = counted(text)
    matrix = {name: n for name, n in sorted(found.items()) if name.split(".")[0] in _MATRIX}
    return Counts(
        fma=plain["FFMA"] + 2 * plain["FFMA2"],
        mul=plain["FMUL"] + 2 * plain["FMUL2"],
        add=plain["FADD"] + 2 * plain["FADD2"],
        exp2=sum(count for name, count in found.items() if name.startswith("MUFU.EX2")),
        matrix=matrix,
    )


def contracted(built: Counts, strict: Counts) -> int:
    """How many products and sums ptxas made one, against the same code with that forbidden."""
    return max(0, built.fma - strict.fma)

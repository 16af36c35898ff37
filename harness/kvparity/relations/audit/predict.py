"""Which other tiles are equal to the base: by the compiled code, or by the model of tensor cores.

A choice of rows and warps changes one side. It is compiled and compared with the other side on the
base tiles, as a contract's decode is with its prefill. What is only equal by model, or the same, is
still to be measured: nothing here is in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from kvparity.relations.audit.compare import Field, KernelComparison, Verdict, compare, worst
from kvparity.relations.audit.compile import CompileProgress, silent
from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.side import read_all
from kvparity.relations.audit.views import AuditSide
from kvparity.tiles.predicted import Predicted, Word
from kvparity_contracts.json_types import JsonObject
from kvparity_kernels.rules import choices
from kvparity_kernels.tiles import BASE, Tiles

DIMS = (64, 128)
"""The head dimensions that `kvparity tiles --measure` has."""
_HEADS = (8, 2)


@dataclass(frozen=True)
class Prediction:
    """What is said of one choice, the worst of all head dimensions."""

    arch: str
    triton: str
    dtype: str
    choice: str
    found: tuple[KernelComparison, ...]

    @property
    def word(self) -> Verdict:
        """The worst of the head dimensions."""
        return worst(each.verdict for each in self.found)

    @property
    def row(self) -> Predicted | None:
        """The row of ``predicted.json``; None where nothing equal is predicted."""
        words = [word for word in get_args(Word) if word == self.word]
        return Predicted(self.arch, self.triton, self.dtype, self.choice, *words) if words else None

    def as_json(self) -> JsonObject:
        """JSON values."""
        return {
            "arch": self.arch,
            "triton": self.triton,
            "dtype": self.dtype,
            "choice": self.choice,
            "word": self.word,
            "deciding": sorted({field.name for field in self.deciding}),
            "notes": sorted({field.note for field in self.deciding} - {""}),
            "head_dims": list(DIMS),
            "row": None if self.row is None else asdict(self.row),
        }

    @property
    def deciding(self) -> tuple[Field, ...]:
        """The fields that make the word; none if it is ``same``."""
        return tuple(
            field
            for each in self.found
            for field in each.fields
            if field.verdict == self.word != "same"
        )

    @property
    def line(self) -> tuple[str, ...]:
        """For a table: what, the word, and the fields that decide."""
        names = ", ".join(sorted({field.name for field in self.deciding}))
        return (self.arch, self.triton, self.dtype, self.choice, self.word, names)


def candidates() -> dict[str, Tiles]:
    """The choices that an audit can judge: rows and warps of attention.

    Not those that leave tiles out, whose trip counts no audit sees, nor linear layers, which it
    does not compile.
    """
    return {
        name: each for name, each in choices().items() if not each.linear and not each.skip_hidden
    }


def predict(
    archs: Sequence[str],
    dtypes: Sequence[str],
    names: Sequence[str] | None = None,
    *,
    dims: Sequence[int] = DIMS,
    folder: Path | None = None,
    progress: CompileProgress = silent,
) -> tuple[Prediction, ...]:
    """Compile and compare every choice. Raises ``AuditError``, ``ValueError``."""
    chosen = {name: candidates()[name] for name in names or reversed(candidates())}
    asked = {
        (arch, dtype, name): [_pair(arch, dtype, dim, each) for dim in dims]
        for arch in archs
        for dtype in dtypes
        for name, each in chosen.items()
    }
    sides = read_all(
        (request for pairs in asked.values() for pair in pairs for request in pair),
        folder=folder,
        progress=progress,
    )
    return tuple(
        Prediction(arch, _triton(sides[pairs[0][0]]), dtype, name, _compared(sides, pairs))
        for (arch, dtype, name), pairs in asked.items()
    )


def _pair(arch: str, dtype: str, dim: int, tiles: Tiles) -> tuple[Request, Request]:
    """The side that a choice changes beside the other one on the base."""
    shape = Shape(*_HEADS, dim, execution=dtype, kv_cache=dtype)
    decode = tiles.decode_block_m is not None or tiles.decode_warps is not None
    return (
        Request("prefill", arch, shape, tiles=BASE if decode else tiles),
        Request("decode", arch, shape, tiles=tiles if decode else BASE),
    )


def _triton(side: AuditSide) -> str:
    return ".".join(side.walk.triton.split(".")[:2])


def _compared(
    sides: dict[Request, AuditSide], pairs: Sequence[tuple[Request, Request]]
) -> tuple[KernelComparison, ...]:
    return tuple(compare(sides[left], sides[right]) for left, right in pairs)

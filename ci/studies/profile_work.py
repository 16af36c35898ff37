"""What one program of a kernel reads and multiplies, by calculation from its constants.

Bytes are those of a program that shares nothing with others; caches make them fewer. Of attention,
one split of keys is counted, with hidden ones, as the kernels walk them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import torch

from kvparity.relations.audit.capture import Launch


class ProgramWork(TypedDict):
    """``useful``: the multiplications of rows that exist, where a tile may hold fewer."""

    of: str
    bytes: int
    multiplications: int
    useful: int
    useful_per_byte: float


class Sizes:
    """The arguments of a launch as whole numbers; of a tensor, the bytes of an element."""

    def __init__(self, launch: Launch) -> None:
        self.arguments = launch.arguments

    def __getitem__(self, name: str) -> int:
        value = self.arguments[name]
        if isinstance(value, torch.Tensor):
            return value.element_size()
        if not isinstance(value, int):
            raise TypeError(f"{name} is {value!r}, expected a whole number or a tensor")
        return value


def _work(size: int, multiplications: int, useful: int, of: str) -> ProgramWork:
    return {
        "of": of,
        "bytes": size,
        "multiplications": multiplications,
        "useful": useful,
        "useful_per_byte": round(useful / size, 2),
    }


def _attention(a: Sizes, rows: int, what: str) -> ProgramWork:
    each = 2 * a["SPLIT"] * a["D"]
    return _work(each * a["K"], each * a["BM"], each * min(rows, a["BM"]), what)


def _combine(a: Sizes) -> ProgramWork:
    columns = min(a["D"], a["CB"])
    size = a["GB"] * (columns + 2) * 4
    return _work(size, 2 * a["GB"] * columns, 2 * min(a["G"], a["GB"]) * columns, "one split")


def _linear(a: Sizes) -> ProgramWork:
    rows, columns, depth = a["BLOCK_M"], a["BLOCK_N"], a["K"]
    size = ((rows + columns) * depth) * a["X"] + rows * columns * a["Y"]
    return _work(size, rows * columns * depth, rows * columns * depth, "one full tile")


def _norm(a: Sizes) -> ProgramWork:
    size = a["H"] * (2 * a["X"] + a["W"] + a["Y"])
    return _work(size, 3 * a["H"], 3 * a["H"], "a row")


WORK: dict[str, Callable[[Sizes], ProgramWork]] = {
    "attention.prefill": lambda a: _attention(a, a["BM"], "one split, full tile of rows"),
    "attention.decode_split": lambda a: _attention(a, a["G"], "one split, one row a sequence"),
    "attention.decode_combine": _combine,
    "linear.linear": _linear,
    "norm.rms_norm": _norm,
    "logprob.parts": lambda a: _work(a["PART"] * a["LOGITS"], 0, 0, "a full part of a row"),
    "digest.row_digest": lambda a: _work(a["W"] * a["X"], 2 * a["W"], 2 * a["W"], "a row"),
}
"""By kernel; the others move each element once."""


def work(launch: Launch) -> ProgramWork | None:
    """For the document; None where nothing is known of the kernel."""
    found = WORK.get(launch.kernel.name)
    return found and found(Sizes(launch))

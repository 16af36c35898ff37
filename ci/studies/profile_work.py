"""What one program of a kernel reads and multiplies, by calculation from its constants.

Bytes are those of a program that shares nothing with others; caches make them fewer. Of attention,
one split of keys is counted, with hidden ones, as the kernels walk them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Work:
    """``useful``: the multiplications of rows that exist, where a tile may hold fewer."""

    bytes: int
    multiplications: int
    useful: int
    what: str


def _attention(a: Mapping[str, Any], rows: int, what: str) -> Work:
    size = 2 * a["SPLIT"] * a["D"] * _item(a["K"])
    each = 2 * a["SPLIT"] * a["D"]
    return Work(size, each * a["BM"], 2 * a["SPLIT"] * a["D"] * min(rows, a["BM"]), what)


def _combine(a: Mapping[str, Any]) -> Work:
    columns = min(a["D"], a.get("CB", a["D"]))
    size = a["GB"] * (columns + 2) * 4
    return Work(size, 2 * a["GB"] * columns, 2 * min(a["G"], a["GB"]) * columns, "one split")


def _linear(a: Mapping[str, Any]) -> Work:
    rows, columns, depth = a["BLOCK_M"], a["BLOCK_N"], a["K"]
    size = ((rows + columns) * depth) * _item(a["X"]) + rows * columns * _item(a["Y"])
    return Work(size, rows * columns * depth, rows * columns * depth, "one full tile")


def _norm(a: Mapping[str, Any]) -> Work:
    size = a["H"] * (2 * _item(a["X"]) + _item(a["W"]) + _item(a["Y"]))
    return Work(size, 3 * a["H"], 3 * a["H"], "a row")


def _item(x: torch.Tensor) -> int:
    return x.element_size()


WORK: dict[str, Callable[[Mapping[str, Any]], Work]] = {
    "attention.prefill": lambda a: _attention(a, a["BM"], "one split, full tile of rows"),
    "attention.decode_split": lambda a: _attention(a, a["G"], "one split, one row a sequence"),
    "attention.decode_combine": _combine,
    "linear.linear": _linear,
    "norm.rms_norm": lambda a: Work(
        a["H"] * (2 * _item(a["X"]) + _item(a["W"]) + _item(a["Y"])),
        3 * a["H"],
        3 * a["H"],
        "a row",
    ),
    "logprob.parts": lambda a: Work(a["PART"] * _item(a["LOGITS"]), 0, 0, "a full part of a row"),
    "digest.row_digest": lambda a: Work(a["W"] * _item(a["X"]), 2 * a["W"], 2 * a["W"], "a row"),
}
"""By kernel; the others move each element once."""


def work(name: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """For the document; None where nothing is known of the kernel."""
    if name not in WORK:
        return None
    found = WORK[name](arguments)
    ratio = found.useful / found.bytes
    return {
        "of": found.what,
        "bytes": found.bytes,
        "multiplications": found.multiplications,
        "useful": found.useful,
        "useful_per_byte": round(ratio, 2),
    }

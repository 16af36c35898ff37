"""Which rows of the table are in force on a device, and in what words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from kvparity_kernels import rules
from kvparity_kernels.rules import Rule
from kvparity_kernels.tiles import BASE, Tiles

DTYPES = rules.DTYPES


@dataclass(frozen=True)
class RulesKey:
    """Where rows hold: ``arch`` is None on a CPU, whose interpreter needs none."""

    arch: str | None
    triton: str


class TilesInForce(TypedDict):
    """What is in force on a device: by format, and in one sentence that says what it rests on."""

    arch: str | None
    triton: str
    in_force: dict[str, str]
    words: str


def place(device: torch.device) -> RulesKey:
    """That of a device."""
    if device.type != "cuda":
        return RulesKey(None, rules.triton_version())
    return RulesKey(*rules.here(device))


def measured(at: RulesKey, dtype: str) -> tuple[Rule, ...]:
    """The rows of a place in a format, equal or not."""
    return () if at.arch is None else rules.rows_for(at.arch, at.triton, dtype)


def in_force(at: RulesKey, dtype: str) -> Tiles:
    """The tiles of a place in a format."""
    return BASE if at.arch is None else rules.in_force(at.arch, at.triton, dtype)


def row_number(rule: Rule) -> int:
    """Its place in the table, from 1."""
    return rules.table().index(rule) + 1


def words(which: Tiles) -> str:
    """``base``, or what differs from it."""
    parts = []
    for side in ("prefill", "decode"):
        rows, warps = getattr(which, f"{side}_block_m"), getattr(which, f"{side}_warps")
        parts += [f"{side}_block_m={rows}"] if rows is not None else []
        parts += [f"{side}_warps={warps}"] if warps is not None else []
    parts += ["skip_hidden"] if which.skip_hidden else []
    for rows, tile in which.linear:
        parts.append(f"linear {tile}" + (f" for up to {rows} rows" if rows else " beyond"))
    return ", ".join(parts) or "base"


def describe(device: torch.device, dtypes: Sequence[str] = DTYPES) -> TilesInForce:
    """The tiles in force, as JSON values.

    Raises ``RulesError`` if the table is damaged.
    """
    at = place(device)
    formats = {dtype: words(in_force(at, dtype)) for dtype in dtypes}
    return {
        "arch": at.arch,
        "triton": at.triton,
        "in_force": formats,
        "words": _sentence(at, formats),
    }


def _sentence(at: RulesKey, formats: dict[str, str]) -> str:
    if at.arch is None:
        return "base tiles; the interpreter needs none"
    if not any(measured(at, dtype) for dtype in formats):
        return "not measured on this architecture and Triton version: base tiles"
    parts = [
        f"{dtype}: {tiles if measured(at, dtype) else 'base, not measured'}"
        for dtype, tiles in formats.items()
    ]
    return "; ".join(parts)

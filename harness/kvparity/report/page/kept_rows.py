"""Compared rows of a case as its file keeps them: which tokens differ, and by how much."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kvparity.core.bits import differing, pattern, ulps
from kvparity.core.errors import RunFolderError
from kvparity.plan.results import CaseLine
from kvparity.report.failure_file import damage
from kvparity.rollouts.tokens import ScoredSequence, Tokens

MOST_ROWS = 20
"""Tokens of a case that are listed: the first that differ, or the farthest from float64."""


@dataclass(frozen=True)
class ShownRow:
    """A compared token. ``bits``: patterns of both sides, empty beside float64, which has other
    ones. ``apart``: in ulps, or absolute."""

    sequence: str
    position: int
    token: int | None
    values: tuple[float, float]
    bits: tuple[str, ...]
    apart: str


@dataclass(frozen=True)
class RowsOfCase:
    """``rows``: the first or the farthest; ``of``: how many differ, or were measured. ``tokens``:
    all compared tokens, where the case has logprobs of two sides."""

    rows: tuple[ShownRow, ...]
    of: int
    tokens: Tokens | None


NOTHING = RowsOfCase((), 0, None)


def kept_rows(folder: Path, case: CaseLine) -> RowsOfCase:
    """What the file of a case shows; of a case without one, nothing.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    if case.evidence is None or case.relation not in ("invariance", "accuracy"):
        return NOTHING
    if (wrong := damage(folder, case)) is not None:
        raise RunFolderError(f"{folder}: case {case.id}: {wrong}")
    try:
        with safe_open(str(folder / case.evidence), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            index = [(int(a), int(b)) for a, b in json.loads((file.metadata() or {})["index"])]
        if case.relation == "accuracy":
            return _from_float64(case, tensors, index)
        return _both_sides(case, tensors, index)
    except (OSError, SafetensorError, LookupError, ValueError, TypeError, RuntimeError) as error:
        words = f"case {case.id}: {case.evidence} cannot be read ({error})"
        raise RunFolderError(f"{folder}: {words}") from None


def _both_sides(
    case: CaseLine, tensors: Mapping[str, Tensor], index: list[tuple[int, int]]
) -> RowsOfCase:
    a, b = tensors["reference.values"], tensors["candidate.values"]
    off = differing(a, b)
    whole = tensors["reference.digests"] != tensors["candidate.digests"]
    scored = case.temperature is not None and case.first_divergence is not None
    first = case.first_divergence
    if scored and first is not None:  # a row has a logprob of each temperature
        a, b, off = (each[:, first.column : first.column + 1] for each in (a, b, off))
    rows = torch.nonzero(off.any(-1) | whole).flatten().tolist()
    targets, apart = tensors["candidate.targets"], ulps(a, b)
    shown = []
    for row in rows[:MOST_ROWS]:
        at = int(off[row].int().argmax())  # the first that differs; the first where none does
        x, y = a[row, at : at + 1], b[row, at : at + 1]
        far = int(apart[row, at])
        shown.append(
            ShownRow(
                f"{case.workload}/{index[row][0]}",
                index[row][1],
                int(targets[row]) if scored else None,
                (float(x), float(y)),
                (pattern(x), pattern(y)),
                f"{far} ulp{'' if far == 1 else 's'}" if far else "elsewhere in the row",
            )
        )
    tokens = _tokens(case, (a, b), targets, index) if scored else None
    return RowsOfCase(tuple(shown), len(rows), tokens)


def _from_float64(
    case: CaseLine, tensors: Mapping[str, Tensor], index: list[tuple[int, int]]
) -> RowsOfCase:
    value, exact = tensors["value"], tensors["exact"]
    error = (value.double() - exact).abs()
    far = torch.where(error.isnan(), torch.inf, error)
    rows = torch.argsort(far, descending=True, stable=True).tolist()
    shown = (
        ShownRow(
            f"{case.workload}/{index[row][0]}",
            index[row][1],
            None,
            (float(value[row]), float(exact[row])),
            (),
            f"{float(error[row]):.3g}",
        )
        for row in rows[:MOST_ROWS]
    )
    return RowsOfCase(tuple(shown), len(rows), None)


def _tokens(
    case: CaseLine, sides: tuple[Tensor, Tensor], targets: Tensor, index: list[tuple[int, int]]
) -> Tokens:
    """All tokens, by sequence, as drift is measured."""
    reference, candidate = (side[:, 0].numpy().astype(np.float32) for side in sides)
    turned = case.rollout == case.path
    rollout, trainer = (candidate, reference) if turned else (reference, candidate)
    numbers = np.array([n for n, _ in index], dtype=np.int32)
    positions = np.array([p for _, p in index], dtype=np.int32)
    ids = targets.numpy().astype(np.int32)
    return Tokens.of(
        ScoredSequence(
            f"{case.workload}/{number}", rollout[own], trainer[own], positions[own], ids[own]
        )
        for number in dict.fromkeys(numbers.tolist())
        for own in (numbers == number,)
    )

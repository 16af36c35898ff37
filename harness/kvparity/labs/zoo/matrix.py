"""The whole matrix: run all cells, here or in several processes, and say what caught what."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import Any

from kvparity.core.environment import settle
from kvparity.core.isolation.pool import Apart
from kvparity.labs.zoo.cells import RELATIONS, Cell, cells
from kvparity.labs.zoo.work import compute
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.defects import DEFECTS, defects_of
from kvparity_contracts.paths import ON_CPU

SCHEMA_VERSION = 1
TASK = 12
"""Cells of one task: enough to share what is computed with nothing planted."""
Progress = Callable[[int, int], None]
"""(cells done, cells in all)"""


def run(
    only: Collection[str], *, device: str, jobs: int, progress: Progress
) -> list[dict[str, Any]]:
    """The entries of all cells, in their order; ``only``: of these controls.

    Raises ``KeyError`` for a name that is no control, ``SubjectError`` if a process dies.
    """
    for name in only:
        if name not in CONTROLS:
            raise KeyError(name)
    asked = cells(only)
    tasks = _tasks(asked)
    entries: list[dict[str, Any]] = []

    def done(found: list[dict[str, Any]]) -> None:
        entries.extend(found)
        progress(len(entries), len(asked))

    if jobs == 1:
        settle()
        for task in tasks:
            done(compute(task, device))
    else:
        with Apart(jobs, math.inf, lambda what: None, first=settle) as pool:
            for found in pool.run([(compute, task, device) for task in tasks]):
                done(found)
            pool.finish()
    places = {cell: number for number, cell in enumerate(asked)}
    return sorted(entries, key=lambda entry: places[_cell(entry)])


def _cell(entry: dict[str, Any]) -> Cell:
    return Cell(entry["control"], entry["habitat"], entry["workload"] or "", entry["relation"])


def _tasks(asked: Sequence[Cell]) -> list[list[Cell]]:
    """Cells of one place and relation together, what takes longest first."""
    cost = {"audit": 0, "order": 1, "liveness": 2}

    def place(cell: Cell) -> tuple[int, str, str, str]:
        return cost.get(cell.relation, 3), cell.habitat, cell.workload, cell.relation

    tasks = []
    for _, group in groupby(sorted(asked, key=place), key=place):
        own = list(group)
        tasks += [own[at : at + TASK] for at in range(0, len(own), TASK)]
    return tasks


def summary(entries: Sequence[dict[str, Any]], device: str = "cpu") -> list[dict[str, Any]]:
    """One entry for each control that was run: what caught it, and whether what must did.

    Nothing must catch a control on a ``device`` that cannot run its path.
    """
    found = []
    for name in CONTROLS:
        own = [entry for entry in entries if entry["control"] == name]
        if not own:
            continue
        by = {
            relation: _word([e["found"] for e in own if e["relation"] == relation])
            for relation in RELATIONS
        }
        here = device == "cpu" or CONTROLS[name].path.kind not in ON_CPU
        must = list(CONTROLS[name].relations) if here else []
        found.append(
            {
                "control": name,
                "defects": list(defects_of(name)),
                "by": by,
                "must": must,
                "missed": [relation for relation in must if by[relation] != "caught"],
                "habitats": sorted({entry["habitat"] for entry in own}),
            }
        )
    return found


def _word(found: Sequence[str]) -> str:
    """What one relation says of a control over all its places."""
    for word in ("caught", "void", "not caught"):
        if word in found:
            return word
    return "does not apply"


def document(
    entries: Sequence[dict[str, Any]], environment: dict[str, Any], elapsed: float
) -> dict[str, Any]:
    """The whole result as JSON values; ``ok``: each control was caught by all that must."""
    controls = summary(entries, str(environment.get("device", "cpu")))
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": not any(each["missed"] for each in controls),
        "environment": environment,
        "defects": {
            "listed": len(DEFECTS),
            "expressed": sum(bool(each.controls) for each in DEFECTS),
        },
        "controls": controls,
        "cells": list(entries),
        "elapsed_s": round(elapsed, 1),
    }

"""The whole matrix: run all entries, here or in several processes, and say what caught what."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import TypeVar

from kvparity.core.environment import EnvironmentDocument, settle
from kvparity.core.isolation.pool import Apart, PoolTask
from kvparity.labs.defect_matrix.entries import Entry, entries
from kvparity.labs.defect_matrix.locating import locate, wanted
from kvparity.labs.defect_matrix.results import (
    ControlSummary,
    EntryResult,
    LocatedControl,
    LocatedScore,
    MatrixDocument,
)
from kvparity.labs.defect_matrix.work import compute
from kvparity_contracts.checks import CHECKS
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.defects import DEFECTS, defects_of
from kvparity_contracts.paths import ON_CPU

SCHEMA_VERSION = 2
TASK = 12
"""Entries of one task: enough to share what is computed with nothing planted."""
R = TypeVar("R")
Progress = Callable[[int, int], None]
"""(entries done, entries in all)"""


def run(only: Collection[str], *, device: str, jobs: int, progress: Progress) -> list[EntryResult]:
    """The results of all entries, in their order; ``only``: of these controls.

    Raises ``KeyError`` for a name that is no control, ``SubjectError`` if a process dies.
    """
    for name in only:
        if name not in CONTROLS:
            raise KeyError(name)
    asked = entries(only)
    results = _shared(compute, asked, device, jobs, progress)
    places = {entry: number for number, entry in enumerate(asked)}
    return sorted(results, key=lambda result: places[_entry(result)])


def located(
    results: list[EntryResult], *, device: str, jobs: int, progress: Progress
) -> list[LocatedControl]:
    """What ``kvparity locate`` names of each control, in the first place where bits showed it."""
    return _shared(locate, wanted(results), device, jobs, progress)


def _shared(
    work: Callable[[list[Entry], str], list[R]],
    asked: list[Entry],
    device: str,
    jobs: int,
    progress: Progress,
) -> list[R]:
    """What ``work`` makes of all entries, in any order, by one process or several."""
    results: list[R] = []

    def done(found: list[R]) -> None:
        results.extend(found)
        progress(len(results), len(asked))

    tasks = _tasks(asked)
    if jobs == 1:
        settle()
        for task in tasks:
            done(work(task, device))
    else:
        with Apart(jobs, math.inf, lambda what: None, first=settle) as pool:
            for found in pool.run(PoolTask(work, (task, device)) for task in tasks):
                done(found)
            pool.finish()
    return results


def _entry(result: EntryResult) -> Entry:
    return Entry(result["control"], result["habitat"], result["workload"] or "", result["relation"])


def _tasks(asked: Sequence[Entry]) -> list[list[Entry]]:
    """Entries of one fixture and relation together, what takes longest first."""
    cost = {"audit": 0, "order": 1, "liveness": 2}

    def place(entry: Entry) -> tuple[int, str, str, str]:
        return cost.get(entry.relation, 3), entry.fixture, entry.workload, entry.relation

    tasks = []
    for _, group in groupby(sorted(asked, key=place), key=place):
        own = list(group)
        tasks += [own[at : at + TASK] for at in range(0, len(own), TASK)]
    return tasks


def summary(
    results: Sequence[EntryResult], device: str = "cpu", located: Sequence[LocatedControl] = ()
) -> list[ControlSummary]:
    """One summary for each control that was run: what caught it, and whether what must did.

    Nothing must catch a control on a ``device`` that cannot run its path.
    """
    found: list[ControlSummary] = []
    causes = {each["control"]: each for each in located}
    for name in CONTROLS:
        own = [result for result in results if result["control"] == name]
        if not own:
            continue
        by = {
            relation: _word([e["found"] for e in own if e["relation"] == relation])
            for relation in CHECKS
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
                "habitats": sorted({result["habitat"] for result in own}),
                "located": causes.get(name),
            }
        )
    return found


def _word(found: Sequence[str]) -> str:
    """What one relation says of a control over all its fixtures."""
    for word in ("caught", "void", "not caught"):
        if word in found:
            return word
    return "does not apply"


def score(located: Sequence[LocatedControl]) -> LocatedScore:
    """How many causes and first operations are right."""
    first = [each["first_right"] for each in located if each["first_right"] is not None]
    return {
        "cause": sum(each["cause_right"] for each in located),
        "of": len(located),
        "first": sum(first),
        "of_first": len(first),
    }


def document(
    results: Sequence[EntryResult],
    located: Sequence[LocatedControl],
    environment: EnvironmentDocument,
    elapsed: float,
) -> MatrixDocument:
    """The whole result as JSON values; ``ok``: each control was caught by all that must."""
    controls = summary(results, str(environment.get("device", "cpu")), located)
    return {
        "schema_version": SCHEMA_VERSION,
        "ok": not any(each["missed"] for each in controls),
        "environment": environment,
        "defects": {
            "listed": len(DEFECTS),
            "expressed": sum(bool(each.controls) for each in DEFECTS),
        },
        "located": score(located),
        "controls": controls,
        "cells": list(results),
        "elapsed_s": round(elapsed, 1),
    }

"""The whole measurement: all formats, in several processes, as one document with rows to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from kvparity.core.environment import device_name, environment, settle
from kvparity.core.isolation.pool import Apart, PoolTask
from kvparity.tiles.cases import FULL, TINY, Case
from kvparity.tiles.force import place
from kvparity.tiles.measure import Answer, Control, Measured, Verdict, measure
from kvparity_kernels import rules, runtime

SCHEMA_VERSION = 1
Task = tuple[str, tuple[str, ...], Case, str]
"""Format, choices, case, device."""
_WORST: tuple[Verdict, ...] = ("differs", "cannot", "not applied", "equal")


def document(
    device: torch.device,
    dtypes: Sequence[str],
    choices: Sequence[str],
    *,
    cases: tuple[Case, ...] | None = None,
    jobs: int = 1,
    evidence: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the named choices in the given formats.

    JSON values: ``verdict`` (``measured``, or ``void`` if a control failed its expected result),
    ``environment``, ``controls``, ``answers``, and ``rows`` for the table: of choices that are
    equal or differ, none where it is void. ``cases``: by default all on a device, tiny ones in the
    interpreter, whose rows say so and are refused by the table. ``jobs``: processes.

    Raises ``SubjectError`` if a process dies, and what the base itself raises.
    """
    chosen = cases or (FULL if device.type == "cuda" else TINY)
    # One case a task: kernels of two cases have nothing in common that could be compiled once.
    tasks = [(dtype, tuple(choices), case, str(device)) for dtype in dtypes for case in chosen]
    if jobs > 1 and len(tasks) > 1:
        results = _spread(tasks, jobs, str(device))
    else:
        results = [_do(task, progress) for task in tasks]
    answers = [
        _merged(choice, dtype, [each for result in results for each in result.answers])
        for dtype in dtypes
        for choice in choices
    ]
    void = not results or any(result.void for result in results)
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "void" if void else "measured",
        "environment": environment(device).document(),
        "controls": [asdict(control) for result in results for control in result.controls],
        "answers": [asdict(answer) for answer in answers],
        "rows": [] if void else rows(device, answers, evidence),
    }


def rows(device: torch.device, answers: Sequence[Answer], evidence: str) -> list[dict[str, Any]]:
    """Answers as the table has them."""
    at = place(device)
    return [
        {
            "arch": at.arch or "interpreter",
            "triton": at.triton,
            "dtype": answer.dtype,
            "choice": answer.choice,
            "equal": answer.answer == "equal",
            "device": device_name(device),
            "evidence": evidence,
        }
        for answer in answers
        if answer.answer in ("equal", "differs")
    ]


def _merged(choice: str, dtype: str, answers: Sequence[Answer]) -> Answer:
    """One answer from those of all cases: the worst; numbers are added up."""
    mine = [each for each in answers if (each.choice, each.dtype) == (choice, dtype)]
    if not mine:
        return Answer(choice, dtype, "not applied")
    return replace(
        min(mine, key=lambda each: _WORST.index(each.answer)),
        compared=sum(each.compared for each in mine),
        differing=sum(each.differing for each in mine),
    )


def _spread(tasks: Sequence[Task], jobs: int, device: str) -> list[Measured]:
    with Apart(jobs, math.inf, lambda what: None, first=partial(_start, device)) as pool:
        found = dict(
            pool.run(PoolTask(_plain, (number, task)) for number, task in enumerate(tasks))
        )
        pool.finish()
    return [_measured(found[number]) for number in range(len(tasks))]


def _start(device: str) -> None:
    runtime.select(device)
    settle()


def _plain(number: int, task: Task) -> tuple[int, dict[str, Any]]:
    """What a task gave, as JSON values."""
    return number, asdict(_do(task))


def _measured(found: dict[str, Any]) -> Measured:
    return Measured(
        tuple(Answer(**answer) for answer in found["answers"]),
        tuple(Control(**control) for control in found["controls"]),
    )


def _do(task: Task, progress: Callable[[str], None] = lambda _: None) -> Measured:
    dtype, names, case, device = task
    choices = {name: rules.choices()[name] for name in names}
    return measure(choices, (case,), getattr(torch, dtype), torch.device(device), progress)

"""The whole measurement: all formats, in several processes, as one document with rows to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import torch

from kvparity.environment import device_name, environment, settle
from kvparity.subject import SubjectError
from kvparity.tiles.cases import FULL, TINY, Case
from kvparity.tiles.force import place
from kvparity.tiles.measure import Answer, Control, Measured, measure
from kvparity_kernels import rules, runtime

SCHEMA_VERSION = 1
Task = tuple[str, tuple[str, ...], tuple[Case, ...], str]
"""Format, choices, cases, device."""


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

    JSON values: ``verdict`` (``measured``, or ``void`` if a control is not as it must be),
    ``environment``, ``controls``, ``answers``, and ``rows`` for the table: of choices that are
    equal or differ, none where it is void. ``cases``: by default all on a device, tiny ones in the
    interpreter, whose rows say so and are refused by the table. ``jobs``: processes.

    Raises ``SubjectError`` if a process dies, and what the base itself raises.
    """
    chosen = cases or (FULL if device.type == "cuda" else TINY)
    tasks: list[Task] = []
    parts = max(1, jobs // max(1, len(dtypes)))
    for dtype in dtypes:
        shares = [tuple(choices[i::parts]) for i in range(parts)]
        tasks += [(dtype, share, chosen, str(device)) for share in shares if share]
    if jobs > 1 and len(tasks) > 1:
        results = _spread(tasks, jobs, str(device))
    else:
        results = [_do(task, progress) for task in tasks]
    asked = {name: number for number, name in enumerate(choices)}
    answers = sorted(
        (answer for result in results for answer in result.answers),
        key=lambda answer: (dtypes.index(answer.dtype), asked[answer.choice]),
    )
    void = not results or any(result.void for result in results)
    controls = [control for result in results for control in result.controls]
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": "void" if void else "measured",
        "environment": environment(device),
        "controls": [asdict(control) for control in _once(controls)],
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


def _once(controls: Sequence[Control]) -> list[Control]:
    """Controls of one format that several processes saw alike, once."""
    return list(dict.fromkeys(controls))


def _spread(tasks: Sequence[Task], jobs: int, device: str) -> list[Measured]:
    pool = ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(device,)
    )
    with pool:
        try:
            return list(pool.map(_do, tasks))
        except BrokenProcessPool as error:
            raise SubjectError("a measuring process died without a word; try --jobs 1") from error


def _start(device: str) -> None:
    runtime.select(device)
    settle()


def _do(task: Task, progress: Callable[[str], None] = lambda _: None) -> Measured:
    dtype, names, cases, device = task
    choices = {name: rules.choices()[name] for name in names}
    return measure(choices, cases, getattr(torch, dtype), torch.device(device), progress)

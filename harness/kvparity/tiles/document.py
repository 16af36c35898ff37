"""The whole measurement: all formats, in several processes, as one document with rows to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import TypeAdapter

from kvparity.core.environment import EnvironmentDocument, device_name, environment, settle
from kvparity.core.isolation.pool import Apart, PoolTask
from kvparity.tiles.cases import FULL, TINY, TileCase
from kvparity.tiles.force import place
from kvparity.tiles.measure import ChoiceAnswer, PlantedChange, TilesCompared, Verdict, measure
from kvparity_kernels import rules, runtime
from kvparity_kernels.rules import Rule

SCHEMA_VERSION = 1
Task = tuple[str, tuple[str, ...], TileCase, str]
"""Format, choices, case, device."""
_COMPARED = TypeAdapter(TilesCompared)
_WORST: tuple[Verdict, ...] = ("differs", "cannot", "not applied", "equal")


@dataclass(frozen=True)
class Measurement:
    """All answers, and ``rows`` for the table: of choices that are equal or differ.

    ``verdict`` is ``void`` if a control failed its expected result; there are no rows then.
    """

    verdict: Literal["measured", "void"]
    environment: EnvironmentDocument
    controls: tuple[PlantedChange, ...]
    answers: tuple[ChoiceAnswer, ...]
    rows: tuple[Rule, ...]

    def document(self) -> dict[str, object]:
        """As JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def measurement(
    device: torch.device,
    dtypes: Sequence[str],
    choices: Sequence[str],
    *,
    cases: tuple[TileCase, ...] | None = None,
    jobs: int = 1,
    evidence: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Measure the named choices in the given formats.

    ``cases``: by default all on a device, tiny ones in the
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
    answers = tuple(
        _merged(choice, dtype, [each for result in results for each in result.answers])
        for dtype in dtypes
        for choice in choices
    )
    void = not results or any(result.void for result in results)
    return Measurement(
        "void" if void else "measured",
        environment(device).document(),
        tuple(control for result in results for control in result.controls),
        answers,
        () if void else rows(device, answers, evidence),
    )


def rows(device: torch.device, answers: Sequence[ChoiceAnswer], evidence: str) -> tuple[Rule, ...]:
    """Answers as the table has them."""
    at = place(device)
    return tuple(
        Rule(
            arch=at.arch or "interpreter",
            triton=at.triton,
            dtype=answer.dtype,
            choice=answer.choice,
            equal=answer.answer == "equal",
            device=device_name(device),
            evidence=evidence,
        )
        for answer in answers
        if answer.answer in ("equal", "differs")
    )


def _merged(choice: str, dtype: str, answers: Sequence[ChoiceAnswer]) -> ChoiceAnswer:
    """One answer from those of all cases: the worst; numbers are added up."""
    mine = [each for each in answers if (each.choice, each.dtype) == (choice, dtype)]
    if not mine:
        return ChoiceAnswer(choice, dtype, "not applied")
    return replace(
        min(mine, key=lambda each: _WORST.index(each.answer)),
        compared=sum(each.compared for each in mine),
        differing=sum(each.differing for each in mine),
    )


def _spread(tasks: Sequence[Task], jobs: int, device: str) -> list[TilesCompared]:
    with Apart(jobs, math.inf, lambda what: None, first=partial(_start, device)) as pool:
        found = dict(
            pool.run(PoolTask(_plain, (number, task)) for number, task in enumerate(tasks))
        )
        pool.finish()
    return [_COMPARED.validate_python(found[number]) for number in range(len(tasks))]


def _start(device: str) -> None:
    runtime.select(device)
    settle()


def _plain(number: int, task: Task) -> tuple[int, object]:
    """What a task gave, as JSON values."""
    return number, _COMPARED.dump_python(_do(task), mode="json")


def _do(task: Task, progress: Callable[[str], None] = lambda _: None) -> TilesCompared:
    dtype, names, case, device = task
    choices = {name: rules.choices()[name] for name in names}
    return measure(choices, (case,), getattr(torch, dtype), torch.device(device), progress)

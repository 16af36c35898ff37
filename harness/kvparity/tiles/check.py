"""Before kernels are relied on: do the tiles in force give the base's bits on this very device?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from kvparity.core.errors import SubjectError
from kvparity.tiles import force
from kvparity.tiles.cases import SHORT, TINY, Case
from kvparity.tiles.measure import Answer, Measured, measure
from kvparity_kernels import rules
from kvparity_kernels.rules import Rule
from kvparity_kernels.tiles import BASE

TOGETHER = "all that is in force"


def check(device: torch.device, dtypes: Sequence[str]) -> dict[str, Any]:
    """What is in force in the given formats, re-checked by a short probe.

    JSON values: ``arch``, ``triton``, ``in_force`` and ``words`` as in ``describe``; ``verdict``:
    ``base`` (nothing but the base is in force, so there is nothing to check), ``holds``,
    ``differs`` or ``void``; ``broken``: the rows that do not hold, with what was seen of them;
    ``answers`` and ``controls`` of the probe.

    Raises ``RulesError`` if the table is damaged.
    """
    at = force.place(device)
    found = force.describe(device, dtypes)
    cases = SHORT if device.type == "cuda" else TINY
    results = [
        (dtype, measure({TOGETHER: which}, cases, getattr(torch, dtype), device))
        for dtype in dtypes
        if (which := force.in_force(at, dtype)) != BASE
    ]
    broken: list[dict[str, Any]] = []
    for dtype, result in results:
        (answer,) = result.answers
        if answer.answer in ("differs", "cannot"):
            broken += _broken(at, dtype, answer, cases, device)
    return found | {
        "verdict": _verdict([result for _, result in results]),
        "broken": broken,
        "answers": [asdict(each) for _, result in results for each in result.answers],
        "controls": [asdict(each) for _, result in results for each in result.controls],
    }


def _verdict(results: Sequence[Measured]) -> str:
    if not results:
        return "base"
    answers = {result.answers[0].answer for result in results}
    if answers & {"differs", "cannot"}:
        return "differs"
    void = any(result.void for result in results) or answers != {"equal"}
    return "void" if void else "holds"


def _broken(
    at: force.Place, dtype: str, seen: Answer, cases: Sequence[Case], device: torch.device
) -> list[dict[str, Any]]:
    """The rows that are to blame: those that do not hold alone, or else all of them."""
    equal = {rule.choice: rule for rule in force.measured(at, dtype) if rule.equal}
    choices = {name: rules.choices()[name] for name in equal}
    alone = measure(choices, cases, getattr(torch, dtype), device).answers
    blamed = [each for each in alone if each.answer in ("differs", "cannot")]
    if blamed:
        return [_row(equal[each.choice], each) for each in blamed]
    return [_row(rule, seen) for rule in equal.values()]


def _row(rule: Rule, seen: Answer) -> dict[str, Any]:
    saw = seen.error or f"{seen.differing} of {seen.compared} numbers differ; first {seen.first}"
    return {"row": force.row_number(rule), **asdict(rule), "seen": saw}


def require(device: torch.device, dtypes: Sequence[str]) -> dict[str, Any]:
    """``check``, for who is about to rely on it.

    Raises ``SubjectError`` if a row does not hold on this device, or the check shows nothing.
    """
    try:
        found = check(device, dtypes)
    except rules.RulesError as error:
        raise SubjectError(str(error)) from error
    if found["verdict"] in ("base", "holds"):
        return found
    raise SubjectError(complaint(found, device_words(device)))


def device_words(device: torch.device) -> str:
    """Its name, with how torch calls it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name} ({device})"


def complaint(found: dict[str, Any], device: str) -> str:
    """One sentence for each row that does not hold, and what to do."""
    if found["verdict"] == "void":
        bad = [each for each in found["controls"] if not each["good"]]
        bad += [each for each in found["answers"] if each["answer"] == "not applied"]
        names = ", ".join(each.get("name", each.get("choice")) for each in bad)
        return (
            f"the tiles in force on {device} could not be checked: {names}; remove their rows from "
            f"{rules.PATH} or see what `kvparity tiles --measure` says"
        )
    told = [
        f"row {each['row']} of {rules.PATH} ({each['choice']} in {each['dtype']} on {each['arch']} "
        f"with Triton {each['triton']}, measured on {each['device']}: {each['evidence']}) does not "
        f"hold on {device}: {each['seen']}"
        for each in found["broken"]
    ]
    return (
        "; ".join(told) + ". Set its equal to false, or remove it: then the base tiles are taken. "
        "`kvparity tiles --measure` says what holds here"
    )

"""Before kernels are relied on: do the tiles in force give the base's bits on this very device?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from kvparity.core.errors import SubjectError
from kvparity.tiles import force
from kvparity.tiles.cases import SHORT, TINY, TileCase
from kvparity.tiles.force import TilesInForce
from kvparity.tiles.measure import ChoiceAnswer, PlantedChange, TilesCompared, measure
from kvparity_kernels import rules
from kvparity_kernels.rules import Rule
from kvparity_kernels.tiles import BASE

TOGETHER = "all that is in force"


@dataclass(frozen=True)
class BrokenRow:
    """A row of the table that does not hold, with what was seen of it."""

    row: int
    rule: Rule
    seen: str


@dataclass(frozen=True)
class TilesCheck:
    """What is in force, checked again.

    ``verdict``: ``base`` (nothing but the base is in force, so there is nothing to check),
    ``holds``, ``differs`` or ``void``. ``answers`` and ``controls`` are those of the probe.
    """

    tiles: TilesInForce
    verdict: Literal["base", "holds", "differs", "void"]
    broken: tuple[BrokenRow, ...]
    answers: tuple[ChoiceAnswer, ...]
    controls: tuple[PlantedChange, ...]

    def saying(self, words: str) -> TilesCheck:
        """The same with another sentence about what is in force."""
        return replace(self, tiles={**self.tiles, "words": words})

    def document(self) -> dict[str, object]:
        """As JSON values."""
        return {
            **self.tiles,
            "verdict": self.verdict,
            "broken": [
                {"row": each.row, **asdict(each.rule), "seen": each.seen} for each in self.broken
            ],
            "answers": [asdict(each) for each in self.answers],
            "controls": [asdict(each) for each in self.controls],
        }


def check(device: torch.device, dtypes: Sequence[str]) -> TilesCheck:
    """What is in force in the given formats, re-checked by a short probe.

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
    broken: list[BrokenRow] = []
    for dtype, result in results:
        (answer,) = result.answers
        if answer.answer in ("differs", "cannot"):
            broken += _broken(at, dtype, answer, cases, device)
    return TilesCheck(
        found,
        _verdict([result for _, result in results]),
        tuple(broken),
        tuple(each for _, result in results for each in result.answers),
        tuple(each for _, result in results for each in result.controls),
    )


def _verdict(results: Sequence[TilesCompared]) -> Literal["base", "holds", "differs", "void"]:
    if not results:
        return "base"
    answers = {result.answers[0].answer for result in results}
    if answers & {"differs", "cannot"}:
        return "differs"
    void = any(result.void for result in results) or answers != {"equal"}
    return "void" if void else "holds"


def _broken(
    at: force.RulesKey,
    dtype: str,
    seen: ChoiceAnswer,
    cases: Sequence[TileCase],
    device: torch.device,
) -> list[BrokenRow]:
    """The rows that are to blame: those that do not hold alone, or else all of them."""
    equal = {rule.choice: rule for rule in force.measured(at, dtype) if rule.equal}
    choices = {name: rules.choices()[name] for name in equal}
    alone = measure(choices, cases, getattr(torch, dtype), device).answers
    blamed = [each for each in alone if each.answer in ("differs", "cannot")]
    if blamed:
        return [_row(equal[each.choice], each) for each in blamed]
    return [_row(rule, seen) for rule in equal.values()]


def _row(rule: Rule, seen: ChoiceAnswer) -> BrokenRow:
    saw = seen.error or f"{seen.differing} of {seen.compared} numbers differ; first {seen.first}"
    return BrokenRow(force.row_number(rule), rule, saw)


def require(device: torch.device, dtypes: Sequence[str]) -> TilesCheck:
    """``check``, for who is about to rely on it.

    Raises ``SubjectError`` if a row does not hold on this device, or the check shows nothing.
    """
    try:
        found = check(device, dtypes)
    except rules.RulesError as error:
        raise SubjectError(str(error)) from error
    if found.verdict in ("base", "holds"):
        return found
    raise SubjectError(complaint(found, device_words(device)))


def device_words(device: torch.device) -> str:
    """Its name, with how torch calls it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name} ({device})"


def complaint(found: TilesCheck, device: str) -> str:
    """One sentence for each row that does not hold, and what to do."""
    if found.verdict == "void":
        bad = [each.name for each in found.controls if not each.good]
        bad += [each.choice for each in found.answers if each.answer == "not applied"]
        return (
            f"the tiles in force on {device} could not be checked: {', '.join(bad)}; remove their "
            f"rows from {rules.PATH} or see what `kvparity tiles --measure` says"
        )
    rows = [
        f"row {each.row} of {rules.PATH} ({each.rule}, measured on {each.rule.device}: "
        f"{each.rule.evidence}) does not hold on {device}: {each.seen}"
        for each in found.broken
    ]
    return (
        "; ".join(rows) + ". Set its equal to false, or remove it: then the base tiles are taken. "
        "`kvparity tiles --measure` says what holds here"
    )

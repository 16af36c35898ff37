"""A path compared with float64: what was measured, where it is worst, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.words import UNFINITE, of_allowed
from kvparity.plan.results import Outcome
from kvparity.record.execute import Record
from kvparity.relations.accuracy.line import AccuracyDetails, Spot
from kvparity.relations.bits_and_limits import Comparison, aggregates, number, other_work

OF_A_TOKEN = ("max_abs", "max_abs_dlogp")
"""Limits that hold for each token alone; the others are of all tokens together."""


@dataclass(frozen=True)
class Against:
    """Per compared token the column that is farthest from float64, in the order of a record.

    ``value`` float32, ``exact`` and ``error`` float64, ``column`` int64, all ``[tokens]``: of a
    language model the one column is the temperature's, of a kernel pair an element of O or LSE.
    """

    index: tuple[tuple[int, int], ...]
    value: Tensor
    exact: Tensor
    error: Tensor
    column: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """What is kept as evidence: three numbers a token, however wide its row is."""
        return {"value": self.value, "exact": self.exact, "column": self.column}


def against(candidate: Record, oracle: Tensor, *, column: int | None) -> Against:
    """Reduce both sides to the farthest column of each token; NaN is farther than any number.

    ``oracle`` float64 ``[tokens, width]``, the shape of the record's values; ``column``: the one
    that is looked at (None: all).
    """
    found, wanted = candidate.values, oracle.to(candidate.values.device)
    if column is not None:
        found, wanted = found[:, column : column + 1], wanted[:, column : column + 1]
    error, place = (found.double() - wanted).abs().max(-1)
    pick = place[:, None]
    return Against(
        index=candidate.index,
        value=found.gather(1, pick)[:, 0],
        exact=wanted.gather(1, pick)[:, 0],
        error=error,
        column=place if column is None else torch.full_like(place, column),
    )


def accuracy(
    candidate: Record, oracle: Tensor, limits: Mapping[str, float], *, column: int | None
) -> Comparison:
    """Compare one column (None: all) of a record with float64 values of the same shape.

    Whatever the path does, it is the rollout here: the oracle scores its tokens again. A measure
    that is NaN is over every limit; a limit without its measure is ``void``.
    """
    tokens = len(candidate.index)
    if not tokens:
        return Comparison("void", "no token was compared")
    if oracle.shape != candidate.values.shape:
        return Comparison(
            "void",
            f"the oracle gave {tuple(oracle.shape)} values for "
            f"{tuple(candidate.values.shape)} compared ones",
        )
    found, wanted = candidate.values, oracle.to(candidate.values.device)
    if column is not None:
        found, wanted = found[:, column : column + 1], wanted[:, column : column + 1]
    if not bool(torch.isfinite(wanted).all()):
        return Comparison("void", "the float64 oracle gave NaN or Inf", tokens=tokens)
    errors = against(candidate, oracle, column=column)
    if not bool(candidate.finite.all()):
        bad = ~candidate.finite
        first = _spot(candidate, errors, int(torch.nonzero(bad)[0]), column)
        return Comparison(
            "differs",
            UNFINITE,
            tokens=tokens,
            differing_tokens=int(bad.sum()),
            details=AccuracyDetails(limits=dict(limits), first=first, worst=first),
        )
    measured = aggregates(found, wanted, column)
    if column is not None:
        measured["rollout"] = "candidate"
    values = {name: x for name, x in measured.items() if isinstance(x, float)}
    first_spot, worst = _where(candidate, errors, limits, column)
    details = AccuracyDetails(limits=dict(limits), first=first_spot, worst=worst)

    def found_so(outcome: Outcome, reason: str) -> Comparison:
        return Comparison(outcome, reason, tokens=tokens, **measured, details=details)

    unmeasured = [name for name in limits if name not in values]
    if unmeasured or not limits:
        what = f"{', '.join(unmeasured)} is not measured here" if unmeasured else "no limit is set"
        return found_so("void", what)
    over = [name for name, limit in limits.items() if not values[name] <= limit]
    if over:
        words = of_allowed(values, {name: limits[name] for name in over})
        return found_so("differs", f"over the limit: {words}")
    if candidate.faults:
        details = details.model_copy(update={"faults": candidate.faults})
        return found_so("differs", candidate.faults[0])
    idle = other_work("path", candidate)
    if idle is not None:
        return found_so("void", idle)
    return found_so("holds", of_allowed(values, limits))


def _where(
    candidate: Record, errors: Against, limits: Mapping[str, float], column: int | None
) -> tuple[Spot | None, Spot | None]:
    """The first token over the limit of a token, or that is not exact; and the farthest of all."""
    off = errors.error != 0  # NaN too
    for name in OF_A_TOKEN:
        over = ~(errors.error <= limits.get(name, torch.inf))
        off = over if bool(over.any()) else off
    if not bool(off.any()):
        return None, None
    first, worst = int(torch.nonzero(off)[0]), int(errors.error.argmax())
    return _spot(candidate, errors, first, column), _spot(candidate, errors, worst, column)


def _spot(candidate: Record, errors: Against, at: int, column: int | None) -> Spot:
    sequence, position = candidate.index[at]
    return Spot(
        sequence=candidate.plan.members[sequence].id,
        position=position if column is None else position + 1,
        token=None if column is None else int(candidate.targets[at]),
        column=int(errors.column[at]),
        value=number(errors.value[at]),
        exact=number(errors.exact[at]),
        error=number(errors.error[at]),
    )

"""The tokens of two sides that a contract names, scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from kvparity.gaps.report import Source
from kvparity.gaps.sides import MatchedSides
from kvparity.relations.asked import Kernels
from kvparity.relations.parity.drawn import drawn
from kvparity.relations.parity.line import SideFacts
from kvparity.relations.parity.opened import (
    NO_DEFECT,
    OpenSide,
    ScoringDefect,
    opened,
    recorded,
)
from kvparity.rollouts import Rollout, read_rollouts
from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.pairing import Matched, both_recorded, paired, scored_by
from kvparity.rollouts.record import Logprobs
from kvparity.rollouts.tokens import Tokens
from kvparity_contracts.sides import RecordedSide, ScoringSide, Sides, own_numbers


@dataclass(frozen=True)
class ScoredSides:
    """Both sides' tokens, what each side is, where the ids are from, and why it is not known that
    all ran as was asked, if it is not."""

    found: MatchedSides
    rollout: SideFacts
    trainer: SideFacts
    ids: str
    unproved: str | None


def sides_of(kernels: Kernels) -> Sides:
    """The contract's two sides."""
    found = kernels.contract.subject
    if not isinstance(found, Sides):
        raise TypeError(f"{found.kind} has no two sides")
    return found


def scored(kernels: Kernels, defect: ScoringDefect = NO_DEFECT) -> ScoredSides:
    """Both sides read, or scored. Without a defect once for all cases and controls of a run.

    Raises:
        RolloutError: a recording cannot be used.
        UnsupportedError, SubjectError: a model or server cannot be used so, or fails.
    """
    if defect != NO_DEFECT:
        return _scored(kernels, defect)
    if not kernels.kept:
        kernels.kept.append(_scored(kernels, defect))
    (found,) = kernels.kept
    assert isinstance(found, ScoredSides)
    return found


def _scored(kernels: Kernels, defect: ScoringDefect) -> ScoredSides:
    sides = sides_of(kernels)
    anomalies, matched = Anomalies(), Matched()
    open_sides: list[OpenSide] = []

    def open_side(side: ScoringSide) -> OpenSide:
        own = defect if side is sides.scores else NO_DEFECT
        open_sides.append(opened(kernels, side, own))
        return open_sides[-1]

    trainer = None if isinstance(sides.trainer, RecordedSide) else open_side(sides.trainer)
    vocabulary = None if trainer is None else trainer.scorer.vocabulary
    left = _rollout(kernels, sides, open_side, anomalies, vocabulary)
    if trainer is not None:
        right = trainer.facts
        both = scored_by(trainer.scorer.score(left.rollouts), matched, anomalies)
    else:
        assert isinstance(sides.trainer, RecordedSide)
        right = recorded(kernels, sides.trainer.file)
        if own_numbers(sides):
            both = both_recorded(left.rollouts, matched)
        else:
            others = read_rollouts(kernels.base / sides.trainer.file, anomalies, vocabulary)
            both = paired(left.rollouts, others, matched, anomalies)
    tokens = Tokens.of(both)
    for each in open_sides:
        anomalies.join(each.anomalies)
    doubts = (*(each.unproved for each in open_sides), left.unproved)
    rollout, against = (Source(each.name, each.about) for each in (left.facts, right))
    return ScoredSides(
        MatchedSides(tokens, matched, anomalies, rollout, against),
        left.facts,
        right,
        left.ids,
        next((each for each in doubts if each), None),
    )


@dataclass(frozen=True)
class _Left:
    """The rollout: its sequences with logprobs, as they come."""

    rollouts: Iterator[Rollout]
    facts: SideFacts
    ids: str
    unproved: str | None = None


def _rollout(
    kernels: Kernels,
    sides: Sides,
    open_side: Callable[[ScoringSide], OpenSide],
    anomalies: Anomalies,
    vocabulary: int | None,
) -> _Left:
    if isinstance(sides.rollout, RecordedSide):
        name = sides.rollout.file
        rollouts = read_rollouts(kernels.base / name, anomalies, vocabulary)
        return _Left(rollouts, recorded(kernels, name), f"recorded in {name}")
    if sides.tokens is None:
        made = drawn(kernels, sides)
        rollouts = read_rollouts(made.path, anomalies, vocabulary)
        return _Left(rollouts, made.facts, made.ids, made.unproved)
    side = open_side(sides.rollout)
    within = [each for each in (vocabulary, side.scorer.vocabulary) if each is not None]
    # What the file's own logprobs are is no matter: its ids are what both sides score.
    given = read_rollouts(kernels.base / sides.tokens, None, min(within, default=None))
    scored_ids = side.scorer.score(map(_unscored, given))
    return _Left(_with_logprobs(scored_ids, anomalies), side.facts, f"given in {sides.tokens}")


def _unscored(given: Rollout) -> Rollout:
    """All of its tokens that count, with a logprob or without."""
    mask = given.mask if given.unusable is None else given.mask | given.unusable
    return replace(given, mask=mask, unusable=None, logprobs=None, trainer_logprobs=None)


def _with_logprobs(
    found: Iterator[tuple[Rollout, Logprobs]], anomalies: Anomalies
) -> Iterator[Rollout]:
    for each, logprobs in found:
        wrong = ~np.isfinite(logprobs) & each.mask
        if wrong.any():
            anomalies.add(Anomaly.NOT_FINITE, each.sequence, np.flatnonzero(wrong))
        yield replace(each, logprobs=logprobs, mask=each.mask & ~wrong)

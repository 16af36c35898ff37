"""The sides of one comparison, read and matched: from files, or a file and a model or server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.drift.report import Source
from kvparity.rollouts import Rollout, read_rollouts
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.open import layout_of
from kvparity.rollouts.pairing import Matched, both_recorded, paired, scored_by
from kvparity.rollouts.record import Logprobs, scorable
from kvparity.rollouts.tokens import Tokens
from kvparity.servers.values import Server

if TYPE_CHECKING:
    from kvparity.drift.model_side import ModelSide

Progress = Callable[[int], None]
"""Called with the number of sequences that are scored."""


@dataclass(frozen=True)
class MatchedSides:
    """Both sides' tokens, and what was met on the way."""

    tokens: Tokens
    matched: Matched
    anomalies: Anomalies
    rollout: Source
    trainer: Source


def recordings(path: Path, against: Path | None, vocabulary: int | None) -> MatchedSides:
    """A recording with another, or with the trainer's logprobs that it has itself.

    Raises:
        RolloutError: one of them cannot be used.
    """
    anomalies, matched = Anomalies(), Matched()
    rollouts = read_rollouts(path, anomalies, vocabulary)
    left = Source(str(path), layout_of(path))
    if against is None:
        tokens = Tokens.of(both_recorded(rollouts, matched))
        return MatchedSides(tokens, matched, anomalies, left, left)
    right = Source(str(against), layout_of(against))
    others = read_rollouts(against, anomalies, vocabulary)
    tokens = Tokens.of(paired(rollouts, others, matched, anomalies))
    return MatchedSides(tokens, matched, anomalies, left, right)


def with_model(path: Path, folder: Path, side: ModelSide, progress: Progress) -> MatchedSides:
    """A recording with the logprobs that a model gives its tokens.

    Raises:
        RolloutError: the recording cannot be used, or has no prompts.
        SubjectError: the model fails.
    """
    anomalies, matched = Anomalies(), Matched()
    rollouts = read_rollouts(path, anomalies, side.vocabulary)
    left = Source(str(path), layout_of(path))
    tokens = Tokens.of(scored_by(_counted(side.score(rollouts), progress), matched, anomalies))
    return MatchedSides(
        tokens, matched, anomalies, left, Source(str(folder), side.settings.words())
    )


def with_server(
    path: Path, url: str, server: Server, vocabulary: int | None, progress: Progress
) -> MatchedSides:
    """A recording with the logprobs that a server gives its tokens, one sequence at a time.

    Raises:
        RolloutError: the recording cannot be used, or has no prompts.
        ServerError: the server does not answer as it must.
    """
    anomalies, matched = server.anomalies, Matched()
    rollouts = read_rollouts(path, anomalies, vocabulary)
    left = Source(str(path), layout_of(path))
    scored = _by_server(server, rollouts)
    tokens = Tokens.of(scored_by(_counted(scored, progress), matched, anomalies))
    return MatchedSides(tokens, matched, anomalies, left, Source(url, server.facts.words()))


def _by_server(server: Server, rollouts: Iterator[Rollout]) -> Iterator[tuple[Rollout, Logprobs]]:
    for each in rollouts:
        ids = scorable(each)
        scored = server.score(ids.tolist())
        yield each, scored.logprobs[len(ids) - len(each.mask) :]


def _counted(
    scored: Iterator[tuple[Rollout, Logprobs]], progress: Progress
) -> Iterator[tuple[Rollout, Logprobs]]:
    for number, each in enumerate(scored, 1):
        progress(number)
        yield each

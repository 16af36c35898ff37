"""The sides of one comparison, read and matched: from files, or a file and a model or server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvparity.gaps.flips import SeenExperts, TakenExperts
from kvparity.gaps.report import Source
from kvparity.rollouts import Rollout, read_rollouts
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.open import layout_of
from kvparity.rollouts.pairing import Matched, both_recorded, paired, scored_by
from kvparity.rollouts.record import Logprobs, scorable
from kvparity.rollouts.tokens import Tokens
from kvparity.servers.values import Server

Progress = Callable[[int], None]
"""Called with the number of sequences that are scored."""


@dataclass(frozen=True)
class MatchedSides:
    """Both sides' tokens, and what was met on the way. ``experts``: of a model that was watched."""

    tokens: Tokens
    matched: Matched
    anomalies: Anomalies
    rollout: Source
    trainer: Source
    experts: TakenExperts | None = None


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


class Scorer(Protocol):
    """What gives tokens their logprobs: a model or a server."""

    @property
    def vocabulary(self) -> int | None:
        """Ids must be below it; None: whatever they are."""

    def score(self, rollouts: Iterator[Rollout]) -> Iterator[tuple[Rollout, Logprobs]]:
        """Each sequence with the logprobs of its response, float32 ``[r]``, in order.

        Raises:
            RolloutError: a sequence has no prompt or no ids.
            SubjectError: it fails, or does not answer as it must.
        """


def with_scorer(
    path: Path,
    scorer: Scorer,
    trainer: Source,
    anomalies: Anomalies,
    progress: Progress,
    seen: SeenExperts | None = None,
) -> MatchedSides:
    """A recording with the logprobs that a model or server gives its tokens. ``seen``: what keeps
    the experts of a model that is watched.

    Raises:
        RolloutError: the recording cannot be used, or has no prompts.
        SubjectError: the model or server fails.
    """
    matched = Matched()
    rollouts = read_rollouts(path, anomalies, scorer.vocabulary)
    left = Source(str(path), layout_of(path))
    scored = scored_by(_counted(scorer.score(rollouts), progress), matched, anomalies)
    if seen is None:
        return MatchedSides(Tokens.of(scored), matched, anomalies, left, trainer)
    tokens = Tokens.of(map(seen.kept, scored))
    return MatchedSides(tokens, matched, anomalies, left, trainer, seen.all())


@dataclass(frozen=True)
class ServerScorer:
    """A server that scores given tokens, one sequence at a time. Ids are below ``vocabulary``."""

    server: Server
    vocabulary: int | None = None

    def score(self, rollouts: Iterator[Rollout]) -> Iterator[tuple[Rollout, Logprobs]]:
        """See :class:`Scorer`."""
        for each in rollouts:
            ids = scorable(each)
            scored = self.server.score(ids.tolist())
            yield each, scored.logprobs[len(ids) - len(each.mask) :]


def _counted(
    scored: Iterator[tuple[Rollout, Logprobs]], progress: Progress
) -> Iterator[tuple[Rollout, Logprobs]]:
    for number, each in enumerate(scored, 1):
        progress(number)
        yield each

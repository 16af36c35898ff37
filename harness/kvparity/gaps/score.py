"""A recording with the logprobs of a checkpoint or a server, from its file to matched sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kvparity.core import doing
from kvparity.gaps.flips import SeenExperts
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.report import Source
from kvparity.gaps.settings import Settings
from kvparity.gaps.sides import MatchedSides, ServerScorer, with_scorer
from kvparity.rollouts.anomalies import Anomalies
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress

Progress = Callable[[int, str], None]
"""Called with the number of sequences that are scored, and by what."""


@dataclass(frozen=True)
class ScoredByModel:
    """``unseen``: why the experts of a mixture were not watched, or empty. ``notes``: what of the
    checkpoint or its adapter is not followed.
    """

    sides: MatchedSides
    unseen: str
    notes: tuple[str, ...]


def by_model(
    rollouts: Path,
    checkpoint: Path,
    settings: Settings,
    *,
    device: str,
    progress: Progress,
    watch: bool = False,
) -> ScoredByModel:
    """The model's logprobs of the recorded tokens. The process is settled (``core.environment``).

    Raises:
        RolloutError: the recording cannot be used, or has no prompts.
        UnsupportedError, SubjectError: the checkpoint cannot be loaded so, or the model fails.
    """
    doing.task("loading the model")
    side = ModelSide(checkpoint, settings, torch.device(device), watch=watch)
    words = settings.words()
    doing.task(f"scoring ({words})")
    seen = None if side.routing is None else SeenExperts(side, side.routing)
    sides = with_scorer(
        rollouts,
        side,
        Source(str(checkpoint), words),
        Anomalies(),
        lambda done: progress(done, words),
        seen,
    )
    return ScoredByModel(sides, side.unseen, side.adapter_notes)


def by_server(
    rollouts: Path,
    address: ServerAddress,
    *,
    served: str | None,
    vocabulary: int | None,
    progress: Progress,
) -> MatchedSides:
    """The server's logprobs of the recorded tokens.

    Raises:
        UnsupportedError: the address cannot be used.
        ServerError: the server does not answer as it must.
    """
    doing.task("asking the server what it is")
    server = connect(address, model=served)
    words = server.facts.words()
    doing.task(f"scoring by {words}")
    return with_scorer(
        rollouts,
        ServerScorer(server, vocabulary),
        Source(address.url, words),
        server.anomalies,
        lambda done: progress(done, words),
    )

"""The sides of a contract, ready to score, and what each rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kvparity.core.errors import SubjectError
from kvparity.gaps.model_side import ModelSide
from kvparity.gaps.settings import Dtype, Settings
from kvparity.gaps.sides import Scorer, ServerScorer
from kvparity.gaps.weights import fingerprint, stored
from kvparity.relations.asked import Kernels
from kvparity.relations.parity.line import SideFacts
from kvparity.rollouts import Rollout
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.open import layout_of
from kvparity.rollouts.record import Logprobs
from kvparity.servers.values import Server
from kvparity.subjects.server.subject import connected
from kvparity_contracts.sides import AnySide, ModelSideSpec, ServerSide


@dataclass(frozen=True)
class ScoringDefect:
    """What is planted in a side that scores. ``dtype``: in place of its own. ``weights``: what is
    done to them first. ``doubled``: each prompt has its first token twice."""

    dtype: Dtype | None = None
    weights: Callable[[nn.Module], None] | None = None
    doubled: bool = False


NO_DEFECT = ScoringDefect()


@dataclass(frozen=True)
class OpenSide:
    """``unproved``: why it is not known that it computes as was asked, or None. ``anomalies``: what
    was unusual in its answers, filled while it scores."""

    scorer: Scorer
    facts: SideFacts
    unproved: str | None
    anomalies: Anomalies


def recorded(kernels: Kernels, name: str) -> SideFacts:
    """Of a file of the contract."""
    return facts_of_file(kernels.base / name, name)


def facts_of_file(path: Path, name: str) -> SideFacts:
    """Of a file, under the name by which it is told: a run says the same wherever it lies."""
    return SideFacts(
        kind="recorded",
        name=name,
        about=layout_of(path),
        fingerprint=hashlib.sha256(path.read_bytes()).hexdigest(),
        flags={},
    )


def opened(kernels: Kernels, side: AnySide, defect: ScoringDefect = NO_DEFECT) -> OpenSide:
    """A side that scores.

    Raises:
        UnsupportedError, SubjectError: it cannot be loaded or reached, or is not what was asked.
    """
    if isinstance(side, ServerSide):
        server = connected(side)
        found = OpenSide(
            ServerScorer(server, side.vocabulary),
            facts_of_server(side, server),
            format_unproved(side, server),
            server.anomalies,
        )
    elif isinstance(side, ModelSideSpec):
        model = model_of(kernels, side, defect)
        facts = facts_of_model(kernels, side, model.settings)
        found = OpenSide(model, facts, None, Anomalies())
    else:
        raise TypeError(f"{side.kind} scores nothing")
    return replace(found, scorer=_Doubled(found.scorer)) if defect.doubled else found


def model_of(kernels: Kernels, side: ModelSideSpec, defect: ScoringDefect = NO_DEFECT) -> ModelSide:
    """The model of a side.

    Raises:
        UnsupportedError, SubjectError: it cannot be loaded so, or uses another attention.
    """
    settings = Settings(**side.model_dump(exclude={"kind", "checkpoint"}))
    used = replace(settings, dtype=defect.dtype) if defect.dtype else settings
    if side.adapter is not None:
        used = replace(used, adapter=str(kernels.base / side.adapter))
    found = ModelSide(kernels.base / side.checkpoint, used, torch.device(kernels.device))
    assert isinstance(found.model, nn.Module)
    attention = getattr(found.model.config, "_attn_implementation", None)
    if attention != settings.attention:
        raise SubjectError(
            f"attention {settings.attention!r} was asked for, and the model uses {attention!r}"
        )
    if defect.weights is not None:
        defect.weights(found.model)
    return found


def facts_of_model(kernels: Kernels, side: ModelSideSpec, settings: Settings) -> SideFacts:
    """Of a checkpoint, and of the adapter on it."""
    folders = [each for each in (side.checkpoint, side.adapter) if each is not None]
    return SideFacts(
        kind="model",
        name=side.checkpoint,
        about=replace(settings, adapter=side.adapter).words(),
        fingerprint="+".join(fingerprint(stored(kernels.base / each)) for each in folders),
        flags={},
    )


def facts_of_server(side: ServerSide, server: Server) -> SideFacts:
    """Of a server: what it shows of itself."""
    found: dict[str, object] = {"kind": "server", "name": side.url, "about": server.facts.words()}
    return SideFacts.model_validate(found | {"fingerprint": None, "flags": server.facts.shown})


def format_unproved(side: ServerSide, server: Server) -> str | None:
    """Why it is not known that the server computes in the format of the contract, or None.

    Raises:
        SubjectError: it says that it computes in another.
    """
    if side.dtype is None:
        return None
    told = server.facts.shown.get("dtype")
    if told is None or told == "auto":
        return f"dtype {side.dtype!r} was asked for, and {side.url} does not say what it runs in"
    if told != side.dtype:
        raise SubjectError(
            f"dtype {side.dtype!r} was asked for, and {side.url} runs in {str(told)!r}"
        )
    return None


@dataclass(frozen=True)
class _Doubled:
    """A side that is given each prompt with its first token twice."""

    scorer: Scorer

    @property
    def vocabulary(self) -> int | None:
        return self.scorer.vocabulary

    def score(self, rollouts: Iterator[Rollout]) -> Iterator[tuple[Rollout, Logprobs]]:
        own: list[Rollout] = []

        def doubled() -> Iterator[Rollout]:
            for each in rollouts:
                own.append(each)
                ids = each.prompt_ids
                yield (
                    each
                    if ids is None
                    else replace(each, prompt_ids=np.concatenate([ids[:1], ids]))
                )

        for _, logprobs in self.scorer.score(doubled()):
            yield own.pop(0), logprobs

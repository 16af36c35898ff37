"""What a server is asked and answers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.check import SENTINEL
from kvparity.rollouts.record import Ids, Logprobs
from kvparity_contracts.json_types import JsonObject

Api = Literal["vllm", "sglang"]


@dataclass(frozen=True)
class ServerFacts:
    """What a server tells of itself. ``shown``: its flags, as far as it shows them; no keys."""

    api: Api
    version: str
    model: str
    max_tokens: int | None
    shown: JsonObject

    def words(self) -> str:
        """For a report."""
        return f"{self.api} {self.version}, model {self.model}"


@dataclass(frozen=True)
class ScoredIds:
    """``logprobs`` float32 ``[tokens]``, NaN for the first token, which follows nothing."""

    logprobs: Logprobs
    cached_tokens: int | None


@dataclass(frozen=True)
class Draw:
    """What is to be drawn: ``count`` tokens behind ``prompt``. ``top``: also that many of the most
    likely tokens of the first place."""

    prompt: tuple[int, ...]
    count: int
    temperature: float
    seed: int
    top: int = 0


@dataclass(frozen=True)
class DrawnIds:
    """``ids`` int64 ``[count]``, ``logprobs`` float32 ``[count]``, both as sent.
    ``cached_tokens``: of the prompt, where the server tells. ``top``: logprobs by token id."""

    ids: Ids
    logprobs: Logprobs
    cached_tokens: int | None
    top: tuple[tuple[int, float], ...] = ()


class Server(Protocol):
    """One running server, by ids."""

    facts: ServerFacts

    def score(self, ids: Sequence[int]) -> ScoredIds:
        """The logprob of each token behind those before it, by one whole prefill.

        Raises:
            ServerError: it does not answer as it must.
        """
        ...

    def generate(self, draw: Draw) -> DrawnIds:
        """Tokens that the server draws.

        Raises:
            ServerError: it does not answer as it must.
        """
        ...

    def empty_cache(self) -> bool:
        """Empty its prefix cache; False where it cannot be told to."""
        ...

    @property
    def anomalies(self) -> Anomalies:
        """What was unusual in the answers so far."""
        ...


def without_sentinel(logprobs: Logprobs) -> Logprobs:
    """vLLM's -9999.0 is minus infinity."""
    found: Logprobs = np.where(logprobs == np.float32(SENTINEL), np.float32(-np.inf), logprobs)
    return found

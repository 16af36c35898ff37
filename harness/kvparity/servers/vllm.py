"""vLLM's HTTP API, as version 0.32.0 answers it.

``prompt_logprobs`` are those of the model's own distribution, whatever ``logprobs_mode`` says of
drawn tokens. A request for them does not read the prefix cache. They are asked for greedily: a
seeded request whose prompt is split into chunks ends the CPU engine of that version.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.layouts.base import Foreign
from kvparity.rollouts.layouts.engines import vllm_answers
from kvparity.servers.http import ServerAddress, ServerError, command, get, post
from kvparity.servers.reading import as_model, drawn, one_rollout, scores
from kvparity.servers.values import Draw, DrawnIds, ScoredIds, ServerFacts
from kvparity_contracts.json_types import JsonObject, JsonValue

PATH = "/v1/completions"


class _Version(Foreign):
    version: str


class _Cached(Foreign):
    cached_tokens: int | None = None


class _Usage(Foreign):
    prompt_tokens_details: _Cached | None = None


class _Top(Foreign):
    top_logprobs: list[dict[str, float] | None] | None = None


class _TopChoice(Foreign):
    logprobs: _Top | None = None


class _More(Foreign):
    """What recorded answers are not read for."""

    choices: list[_TopChoice]
    usage: _Usage | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Where the server runs with ``--enable-prompt-tokens-details``."""
        details = self.usage.prompt_tokens_details if self.usage else None
        return None if details is None else details.cached_tokens or 0

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        """Of the first drawn token's place."""
        found = self.choices[0].logprobs
        listed = (found.top_logprobs or [None])[0] if found else None
        names = (listed or {}).items()
        return tuple(
            (int(name.removeprefix("token_id:")), value)
            for name, value in names
            if name.startswith("token_id:")
        )


class VllmServer:
    """A server of vLLM."""

    def __init__(self, at: ServerAddress, model: str, max_tokens: int | None) -> None:
        self.at, self.anomalies = at, Anomalies()
        version = as_model(_Version, get(at, "/version"), f"GET {at.url}/version").version
        shown: JsonObject = {} if max_tokens is None else {"max_model_len": max_tokens}
        self.facts = ServerFacts("vllm", version, model, max_tokens, shown)

    def _ask(self, body: JsonObject) -> tuple[JsonObject, JsonValue, str]:
        request: JsonObject = {"model": self.facts.model, "return_token_ids": True, **body}
        return request, post(self.at, PATH, request), f"POST {self.at.url}{PATH}"

    def empty_cache(self) -> bool:
        """Where the server runs with ``VLLM_SERVER_DEV_MODE=1``."""
        return command(self.at, "/reset_prefix_cache")

    def score(self, ids: Sequence[int]) -> ScoredIds:
        """By ``prompt_logprobs``."""
        body: JsonObject = {
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        request, answer, what = self._ask(body)
        found = one_rollout(vllm_answers, request, answer, self.anomalies, what)
        more = as_model(_More, answer, what)
        return ScoredIds(scores(found, ids, what), more.cached_tokens)

    def generate(self, draw: Draw) -> DrawnIds:
        """By ``logprobs``, on past any end of text."""
        body: JsonObject = {
            "prompt": list(draw.prompt),
            "max_tokens": draw.count,
            "temperature": draw.temperature,
            "logprobs": max(draw.top, 1),
            "ignore_eos": True,
            "return_tokens_as_token_ids": True,
            **({"seed": draw.seed} if draw.temperature else {}),
        }
        request, answer, what = self._ask(body)
        found = drawn(one_rollout(vllm_answers, request, answer, self.anomalies, what), draw, what)
        more = as_model(_More, answer, what)
        if found.response_ids is None or found.logprobs is None:
            raise ServerError(f"{what}: the answer has no drawn tokens with logprobs")
        top = more.top if draw.top else ()
        return DrawnIds(found.response_ids, found.logprobs, more.cached_tokens, top)

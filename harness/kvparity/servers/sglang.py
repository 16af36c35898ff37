"""SGLang's own HTTP API, as version 0.5.23 answers it.

Logprobs of drawn tokens follow the temperature, unless the server runs with
``SGLANG_RETURN_ORIGINAL_LOGPROB=1``; those of given tokens never do. Of given tokens the last id of
the vocabulary is reported as 0. A seed acts where the server runs with
``--enable-deterministic-inference`` alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import Field

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.layouts.base import Foreign
from kvparity.rollouts.layouts.engines import TokenTriple, sglang_answers
from kvparity.servers.flags import shown_flags
from kvparity.servers.http import ServerAddress, ServerError, command, get, post
from kvparity.servers.reading import as_model, drawn, one_rollout, scores
from kvparity.servers.values import Draw, DrawnIds, ScoredIds, ServerFacts
from kvparity_contracts.json_types import JsonObject, JsonValue

PATH = "/generate"
_INFO = "/get_server_info"
_SETTLES = 5.0
"""Seconds after which a server that refuses to empty its cache is taken to be used by others."""


class _ServerInfo(Foreign):
    version: str


class _MoreMeta(Foreign):
    cached_tokens: int | None = None
    input_token_logprobs: list[TokenTriple] | None = None
    output_top_logprobs: list[list[TokenTriple] | None] | None = None


class _MoreGenerated(Foreign):
    """What recorded answers are not read for."""

    meta_info: _MoreMeta = Field(default_factory=_MoreMeta)


class SglangServer:
    """A server of SGLang."""

    def __init__(self, at: ServerAddress, model: str, max_tokens: int | None) -> None:
        self.at, self.anomalies = at, Anomalies()
        found = get(at, _INFO)
        version = as_model(_ServerInfo, found, f"GET {at.url}{_INFO}").version
        shown = shown_flags(found, at.key())
        self.facts = ServerFacts("sglang", version, model, max_tokens, shown)

    def _ask(self, body: JsonObject) -> tuple[JsonValue, str]:
        return post(self.at, PATH, body), f"POST {self.at.url}{PATH}"

    def empty_cache(self) -> bool:
        """Refused with HTTP 400 while a request runs, and for a moment after its answer."""
        until = time.monotonic() + _SETTLES
        while True:
            try:
                return command(self.at, "/flush_cache")
            except ServerError as error:
                if error.status != 400 or time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def score(self, ids: Sequence[int]) -> ScoredIds:
        """By ``input_token_logprobs`` from the first token on."""
        body: JsonObject = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }
        answer, what = self._ask(body)
        found = one_rollout(sglang_answers, body, answer, self.anomalies, what)
        meta = as_model(_MoreGenerated, answer, what).meta_info
        _one_replaced([it[1] for it in meta.input_token_logprobs or ()], ids, what)
        return ScoredIds(scores(found, ids, what), meta.cached_tokens)

    def generate(self, draw: Draw) -> DrawnIds:
        """By ``output_token_logprobs``, on past any end of text."""
        sampling: JsonObject = {
            "max_new_tokens": draw.count,
            "temperature": draw.temperature,
            "ignore_eos": True,
            **({"sampling_seed": draw.seed} if draw.temperature else {}),
        }
        body: JsonObject = {
            "input_ids": list(draw.prompt),
            "sampling_params": sampling,
            "return_logprob": True,
            "top_logprobs_num": draw.top,
        }
        answer, what = self._ask(body)
        found = drawn(one_rollout(sglang_answers, body, answer, self.anomalies, what), draw, what)
        meta = as_model(_MoreGenerated, answer, what).meta_info
        listed = (meta.output_top_logprobs or [None])[0] or []
        top = tuple((token, value) for value, token, _ in listed if value is not None)
        if found.response_ids is None or found.logprobs is None:
            raise ServerError(f"{what}: the answer has no drawn tokens with logprobs")
        return DrawnIds(found.response_ids, found.logprobs, meta.cached_tokens, top)


def _one_replaced(reported: Sequence[int], ids: Sequence[int], what: str) -> None:
    """The last id alone is reported as 0: two ids that are would be scored as other tokens."""
    replaced = {asked for told, asked in zip(reported, ids, strict=False) if told != asked}
    if len(replaced) > 1:
        names = ", ".join(map(str, sorted(replaced)[:3]))
        raise ServerError(
            f"{what}: the answer is of other tokens: ids {names} are reported as 0, which SGLang "
            "does with the last id of a vocabulary alone"
        )

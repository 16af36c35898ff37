"""Answers of vLLM and SGLang servers, with the request where it was kept beside them.

Sources: servers of vLLM 0.32.0 (``/v1/completions``, ``/v1/chat/completions``,
``/inference/v1/generate``; vLLM ``vllm/entrypoints/openai/protocol.py``) and of SGLang 0.5.23
(``/generate``; SGLang ``python/sglang/srt/managers/tokenizer_manager.py``).

An answer that scores a prompt (``prompt_logprobs``, ``input_token_logprobs``) gives
``prompt_logprobs``; what it draws beyond is the response.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from kvparity.rollouts.anomalies import Anomalies, Anomaly
from kvparity.rollouts.layouts.base import FileLayout, Foreign, Ids, Values, layout, parsed
from kvparity.rollouts.record import FilePlace, RawRollout, RolloutError, Sampling
from kvparity_contracts.json_types import JsonObject

_TOKEN_ID = re.compile("token_id:[0-9]{1,18}")


class _Params(Foreign):
    temperature: float | None = None
    top_p: float | None = None


class _Request(_Params):
    """Of vLLM, or of SGLang; a text is no list of ids."""

    prompt: str | Ids | list[str] | list[Ids] | None = None
    token_ids: Ids | None = None
    input_ids: Ids | None = None
    sampling_params: _Params | None = None

    @property
    def ids(self) -> Ids | None:
        """Of one prompt."""
        for found in (self.token_ids, self.input_ids, self.prompt):
            if isinstance(found, list) and all(isinstance(it, int) for it in found):
                return [it for it in found if isinstance(it, int)]
        return None

    @property
    def sampling(self) -> Sampling:
        """As it was asked for."""
        params = self.sampling_params or self
        return Sampling(params.temperature, params.top_p)


class _Scored(Foreign):
    logprob: float | None


Scores = list[dict[str, _Scored] | None]


class _Content(Foreign):
    logprob: float | None
    token: str = ""
    token_id: int | None = None


class _Logprobs(Foreign):
    tokens: list[str] | None = None
    token_logprobs: Values | None = None
    content: list[_Content] | None = None

    @property
    def values(self) -> Values | None:
        """Of each drawn token."""
        if self.content is not None:
            return [it.logprob for it in self.content]
        return self.token_logprobs

    @property
    def ids(self) -> Ids | None:
        """Where the request asked for ``return_tokens_as_token_ids``."""
        if self.content is not None and all(it.token_id is not None for it in self.content):
            return [it.token_id for it in self.content if it.token_id is not None]
        names = self.tokens or [it.token for it in self.content or ()]
        if names and all(map(_TOKEN_ID.fullmatch, names)):
            return [int(name.removeprefix("token_id:")) for name in names]
        return None


class _Weights(Foreign):
    version: str


class _Choice(Foreign):
    index: int = 0
    logprobs: _Logprobs | None = None
    token_ids: Ids | None = None
    prompt_token_ids: Ids | None = None
    prompt_logprobs: Scores | None = None
    weight_versions: list[_Weights] | None = None


class _Answer(Foreign):
    choices: list[_Choice]
    prompt_token_ids: Ids | None = None
    prompt_logprobs: Scores | None = None


def vllm_answers(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """Each choice is a sequence."""
    request, answer = _halves(document, at)
    found = parsed(_Answer, answer, at)
    for choice in found.choices:
        name = str(at.number or 0)
        if len(found.choices) > 1:
            name += f".{choice.index}"
        prompt = choice.prompt_token_ids or found.prompt_token_ids or request.ids
        scores = choice.prompt_logprobs or found.prompt_logprobs
        values = choice.logprobs.values if choice.logprobs else None
        ids = choice.token_ids or (choice.logprobs.ids if choice.logprobs else None)
        if values is not None and ids is None:
            raise RolloutError(
                f"{at}: sequence {name} has logprobs and no ids of their tokens: request it with "
                "return_token_ids: true (text is no identity of tokens)"
            )
        if scores is not None and prompt is None:
            raise RolloutError(
                f"{at}: sequence {name} has prompt_logprobs and no prompt_token_ids: request it "
                "with return_token_ids: true, or keep the request beside the answer"
            )
        if values is None and scores is None:
            raise RolloutError(
                f"{at}: sequence {name} has no logprobs: request it with logprobs: 1, or with "
                "prompt_logprobs: 0 for those of given tokens"
            )
        yield RawRollout(
            at=at,
            sequence=name,
            prompt_ids=prompt,
            response_ids=ids if values is not None else [],
            logprobs=values,
            prompt_logprobs=None if scores is None else _of_prompt(scores, prompt or [], at, name),
            sampling=request.sampling,
            weight_versions=tuple(it.version for it in choice.weight_versions or ()),
            field_names={"response_ids": "token_ids", "prompt_ids": "prompt_token_ids"},
        )


def _of_prompt(scores: Scores, prompt: Ids, at: FilePlace, name: str) -> Values:
    """The logprob of each prompt token itself, among those that are listed for its place."""
    if len(scores) != len(prompt):
        raise RolloutError(
            f"{at}: sequence {name}: {len(scores)} prompt_logprobs for {len(prompt)} prompt tokens"
        )
    values: Values = []
    for place, (listed, token) in enumerate(zip(scores, prompt, strict=True)):
        if listed is None:
            values.append(None)
        elif str(token) in listed:
            values.append(listed[str(token)].logprob)
        else:
            raise RolloutError(
                f"{at}: sequence {name}: prompt_logprobs[{place}] lists {', '.join(listed)}, and "
                f"the prompt's token is {token}"
            )
    return values


def _halves(document: JsonObject, at: FilePlace) -> tuple[_Request, object]:
    if "request" in document and "response" in document:
        return parsed(_Request, document["request"], at), document["response"]
    return _Request(), document


TokenTriple = Annotated[tuple[float | None, int, str | None], Field(strict=False)]
"""Logprob, id, text. JSON has a list."""


class _Meta(Foreign):
    output_token_logprobs: list[TokenTriple] | None = None
    input_token_logprobs: list[TokenTriple] | None = None
    weight_version: str | None = None


class _Generated(Foreign):
    output_ids: Ids
    meta_info: _Meta


def sglang_answers(
    document: JsonObject, at: FilePlace, anomalies: Anomalies
) -> Iterator[RawRollout]:
    """Input tokens are there where the request had ``logprob_start_len: 0``. SGLang reports the
    last id of the vocabulary among them as 0; the request's ids are taken, where they are kept."""
    request, answer = _halves(document, at)
    found = parsed(_Generated, answer, at)
    meta, name = found.meta_info, str(at.number or 0)
    scored = meta.input_token_logprobs or None
    if meta.output_token_logprobs is None and scored is None:
        raise RolloutError(
            f"{at}: sequence {name} has no logprobs: request it with return_logprob: true"
        )
    drawn = meta.output_token_logprobs
    if drawn is not None and [it[1] for it in drawn] != found.output_ids:
        raise RolloutError(f"{at}: sequence {name}: output_token_logprobs are of other ids")
    prompt = request.ids
    if scored is not None:
        reported = [it[1] for it in scored]
        prompt = reported if prompt is None else prompt
        _same_prompt(reported, prompt, at, name, anomalies)
    yield RawRollout(
        at=at,
        sequence=name,
        prompt_ids=prompt,
        response_ids=found.output_ids,
        logprobs=None if drawn is None else [it[0] for it in drawn],
        prompt_logprobs=None if scored is None else [it[0] for it in scored],
        sampling=request.sampling,
        weight_versions=() if meta.weight_version is None else (meta.weight_version,),
        field_names={"response_ids": "output_ids", "logprobs": "output_token_logprobs"},
    )


def _same_prompt(
    reported: Ids, prompt: Ids, at: FilePlace, name: str, anomalies: Anomalies
) -> None:
    if len(reported) != len(prompt):
        raise RolloutError(
            f"{at}: sequence {name}: {len(reported)} input_token_logprobs for {len(prompt)} prompt "
            "tokens: request it with logprob_start_len: 0"
        )
    for place, (found, asked) in enumerate(zip(reported, prompt, strict=True)):
        if found != asked and found != 0:
            raise RolloutError(
                f"{at}: sequence {name}: input_token_logprobs[{place}] is of token {found}, and "
                f"the request's is {asked}"
            )
        if found != asked:
            anomalies.add(Anomaly.REPLACED_ID, name)


def _kept(plain: FileLayout) -> FileLayout:
    """The same with ``{request, response}`` around it."""
    inner = {"response": plain.keys}
    return FileLayout(f"{plain.name}, with requests", frozenset({"request"}), plain.read, inner)


_PLAIN = (
    layout("vLLM answers", "choices", vllm_answers),
    layout("SGLang answers", "output_ids meta_info", sglang_answers),
)
LAYOUTS = (*_PLAIN, *map(_kept, _PLAIN))

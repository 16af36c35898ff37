"""Answers of servers, checked against what was asked: one sentence where they are of other ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.check import Checker
from kvparity.rollouts.layouts.base import Read, parsed
from kvparity.rollouts.record import FilePlace, Logprobs, Rollout, RolloutError
from kvparity.servers.http import ServerError
from kvparity.servers.values import Draw, without_sentinel
from kvparity_contracts.json_types import JsonObject, JsonValue

_ANSWER = FilePlace(Path("answer"))
AnyAnswer = TypeVar("AnyAnswer", bound=BaseModel)


def as_model(model: type[AnyAnswer], answer: JsonValue, what: str) -> AnyAnswer:
    """The answer as ``model``.

    Raises:
        ServerError: it is of another form.
    """
    try:
        return parsed(model, answer, _ANSWER)
    except RolloutError as error:
        raise ServerError(f"{what}: {error}") from None


def one_rollout(
    read: Read, request: JsonObject, answer: JsonValue, anomalies: Anomalies, what: str
) -> Rollout:
    """The one sequence of an answer, by the reader of recorded answers.

    Raises:
        ServerError: it is of another form, or holds more or fewer sequences.
    """
    document: JsonObject = {"request": request, "response": answer}
    try:
        found = list(read(document, _ANSWER, anomalies))
        if len(found) != 1:
            raise ServerError(f"{what}: the answer holds {len(found)} sequences, expected 1")
        return Checker(anomalies).rollout(found[0])
    except RolloutError as error:
        raise ServerError(f"{what}: {error}") from None


def scores(found: Rollout, ids: Sequence[int], what: str) -> Logprobs:
    """Logprobs of ``ids``, float32 ``[len(ids)]``.

    Raises:
        ServerError: they are of other ids, or one is missing.
    """
    _same(found, ids, what)
    if found.prompt_logprobs is None:
        raise ServerError(f"{what}: the answer scores no prompt")
    missing = np.flatnonzero(np.isnan(found.prompt_logprobs[1:]))
    if missing.size:
        raise ServerError(f"{what}: token {missing[0] + 1} of the prompt has no logprob")
    return without_sentinel(found.prompt_logprobs)


def drawn(found: Rollout, draw: Draw, what: str) -> Rollout:
    """The same, with as many tokens and logprobs as were asked for.

    Raises:
        ServerError: it has other ones.
    """
    _same(found, draw.prompt, what)
    if found.response_ids is None or found.logprobs is None:
        raise ServerError(f"{what}: the answer has no drawn tokens with logprobs")
    if len(found.response_ids) != draw.count:
        raise ServerError(
            f"{what}: the answer was cut: {len(found.response_ids)} of {draw.count} tokens"
        )
    return found


def _same(found: Rollout, ids: Sequence[int], what: str) -> None:
    told = found.prompt_ids
    if told is None:
        raise ServerError(f"{what}: the answer does not say which prompt tokens it is of")
    if len(told) != len(ids):
        raise ServerError(f"{what}: the answer is of {len(told)} prompt tokens, {len(ids)} asked")
    wrong = np.flatnonzero(told != np.asarray(ids))
    if wrong.size:
        at = int(wrong[0])
        raise ServerError(
            f"{what}: the answer is of other tokens: prompt token {at} is {told[at]}, asked was "
            f"{ids[at]}"
        )

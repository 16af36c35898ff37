"""slime, miles and vime. Source: slime ``slime/ray/rollout.py`` (``--save-debug-rollout-data``) and
``slime/backends/megatron_utils/actor.py`` (``--save-debug-train-data``)."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.layouts.base import Flags, Foreign, Ids, Values, layout, parsed, rows
from kvparity.rollouts.record import FilePlace, RawRollout, RolloutError
from kvparity_contracts.json_types import JsonObject


class _Sample(Foreign):
    index: int | None = None
    tokens: Ids
    response_length: int
    loss_mask: Flags | None = None
    rollout_log_probs: Values | None = None
    rollout_routed_experts: list[list[list[int]]] | None = None
    weight_versions: list[str] | None = None
    status: str = ""


class _Rollout(Foreign):
    rollout_id: int
    samples: list[_Sample]


def _samples(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    found = parsed(_Rollout, document, at)
    for number, sample in enumerate(found.samples):
        name = f"rollout{found.rollout_id}.{number if sample.index is None else sample.index}"
        if sample.rollout_log_probs is None:
            raise RolloutError(f"{at}: sequence {name} has no rollout_log_probs")
        cut = _prompt(at, name, len(sample.tokens), sample.response_length)
        yield RawRollout(
            at=at,
            sequence=name,
            prompt_ids=sample.tokens[:cut],
            response_ids=sample.tokens[cut:],
            mask=sample.loss_mask,
            logprobs=sample.rollout_log_probs,
            weight_versions=tuple(sample.weight_versions or ()),
            routes=sample.rollout_routed_experts,
            field_names=_NAMES,
        )


_NAMES = {
    "response_ids": "response_length",
    "mask": "loss_mask",
    "logprobs": "rollout_log_probs",
    "trainer_logprobs": "log_probs",
    "routes": "rollout_routed_experts",
}


def _prompt(at: FilePlace, name: str, tokens: int, response: int) -> int:
    if not 0 <= response <= tokens:
        raise RolloutError(
            f"{at}: sequence {name}: response_length is {response}, and there are {tokens} tokens"
        )
    return tokens - response


class _Columns(Foreign):
    tokens: list[Ids]
    response_lengths: list[int]
    loss_masks: list[Flags]
    rollout_log_probs: list[Values]
    log_probs: list[Values] | None = None


class _Shard(Foreign):
    rollout_id: int
    rank: int
    rollout_data: _Columns


def _shard(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    found = parsed(_Shard, document, at)
    data = found.rollout_data
    rows(data, at, "rollout_data has ")
    for number, tokens in enumerate(data.tokens):
        name = f"rollout{found.rollout_id}.rank{found.rank}.{number}"
        cut = _prompt(at, name, len(tokens), data.response_lengths[number])
        yield RawRollout(
            at=at,
            sequence=name,
            prompt_ids=tokens[:cut],
            response_ids=tokens[cut:],
            mask=data.loss_masks[number],
            logprobs=data.rollout_log_probs[number],
            trainer_logprobs=None if data.log_probs is None else data.log_probs[number],
            field_names=_NAMES,
        )


LAYOUTS = (
    layout("slime rollout", "rollout_id samples", _samples, samples="tokens response_length"),
    layout(
        "slime train shard",
        "rollout_id rank rollout_data",
        _shard,
        rollout_data="tokens response_lengths loss_masks rollout_log_probs",
    ),
)

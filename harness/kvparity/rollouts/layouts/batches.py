"""Batches of verl, TRL, SkyRL, OpenRLHF and tinker: one document, a list for each field.

Sources: verl ``verl/trainer/ppo/ray_trainer.py`` and ``verl/protocol.py``; TRL
``trl/trainer/grpo_trainer.py`` and ``trl/scripts/vllm_serve.py``; SkyRL
``skyrl_train/generators/base.py`` (``GeneratorOutput``); OpenRLHF
``openrlhf/trainer/ppo_utils/experience.py`` (``Experience``); tinker ``types.Datum``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.documents import TENSOR
from kvparity.rollouts.layouts.base import Flags, Foreign, Ids, Values, layout, parsed, rows
from kvparity.rollouts.record import FilePlace, RawRollout, RolloutError, Sampling
from kvparity_contracts.json_types import JsonObject


class _Verl(Foreign):
    prompts: list[Ids]
    responses: list[Ids]
    response_mask: list[Flags] | None = None
    attention_mask: list[Flags] | None = None
    rollout_log_probs: list[Values]
    old_log_probs: list[Values] | None = None


def _verl(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """Prompts are padded on the left, responses on the right; without ``attention_mask`` padding
    cannot be told from tokens, and the prompt is not known."""
    batch = parsed(_Verl, document, at)
    if batch.response_mask is None and batch.attention_mask is None:
        raise RolloutError(
            f"{at}: it has neither response_mask nor attention_mask, so padding cannot be told "
            "from tokens: save one of them, too"
        )
    for number in range(rows(batch, at)):
        width = len(batch.responses[number])
        seen = None if batch.attention_mask is None else batch.attention_mask[number]
        prompt = None
        if seen is not None:
            if len(seen) != len(batch.prompts[number]) + width:
                raise RolloutError(
                    f"{at}: sequence {number}: attention_mask has {len(seen)} values for "
                    f"{len(batch.prompts[number])} prompt and {width} response tokens"
                )
            prompt = [it for it, kept in zip(batch.prompts[number], seen, strict=False) if kept]
        mask = seen[-width:] if seen is not None and width else batch.response_mask
        if batch.response_mask is not None:
            mask = batch.response_mask[number]
        yield RawRollout(
            at=at,
            sequence=str(number),
            prompt_ids=prompt,
            response_ids=batch.responses[number],
            mask=mask,  # type: ignore[arg-type]
            logprobs=batch.rollout_log_probs[number],
            trainer_logprobs=None if batch.old_log_probs is None else batch.old_log_probs[number],
            field_names={
                "response_ids": "responses",
                "mask": "response_mask",
                "logprobs": "rollout_log_probs",
                "trainer_logprobs": "old_log_probs",
            },
        )


class _TrlServer(Foreign):
    prompt_ids: list[Ids]
    completion_ids: list[Ids]
    logprobs: list[list[float | list[float | None] | None]]


def _trl_server(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """An answer of ``/generate/``, or what a ``rollout_func`` returns. Newer servers give a list of
    the best logprobs for each token, the drawn one first."""
    batch = parsed(_TrlServer, document, at)
    completions = len(batch.completion_ids)
    each, rest = divmod(completions, max(1, len(batch.prompt_ids)))
    if rest or len(batch.logprobs) != completions:
        raise RolloutError(
            f"{at}: {len(batch.prompt_ids)} prompt_ids, {completions} completion_ids and "
            f"{len(batch.logprobs)} logprobs do not fit each other"
        )
    for number in range(completions):
        yield RawRollout(
            at=at,
            sequence=str(number),
            prompt_ids=batch.prompt_ids[number // each],
            response_ids=batch.completion_ids[number],
            logprobs=[
                (it[0] if it else None) if isinstance(it, list) else it
                for it in batch.logprobs[number]
            ],
            field_names={"response_ids": "completion_ids"},
        )


class _TrlBatch(Foreign):
    prompt_ids: list[Ids]
    prompt_mask: list[Flags]
    completion_ids: list[Ids]
    completion_mask: list[Flags]
    sampling_per_token_logps: list[Values]
    old_per_token_logps: list[Values] | None = None


def _trl_batch(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    batch = parsed(_TrlBatch, document, at)
    for number in range(rows(batch, at)):
        prompt = zip(batch.prompt_ids[number], batch.prompt_mask[number], strict=False)
        old = batch.old_per_token_logps
        yield RawRollout(
            at=at,
            sequence=str(number),
            prompt_ids=[it for it, kept in prompt if kept],
            response_ids=batch.completion_ids[number],
            mask=batch.completion_mask[number],
            logprobs=batch.sampling_per_token_logps[number],
            trainer_logprobs=None if old is None else old[number],
            field_names={
                "response_ids": "completion_ids",
                "mask": "completion_mask",
                "logprobs": "sampling_per_token_logps",
                "trainer_logprobs": "old_per_token_logps",
            },
        )


class _Sky(Foreign):
    prompt_token_ids: list[Ids]
    response_ids: list[Ids]
    loss_masks: list[Flags]
    rollout_logprobs: list[Values]


def _sky(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    batch = parsed(_Sky, document, at)
    for number in range(rows(batch, at)):
        yield RawRollout(
            at=at,
            sequence=str(number),
            prompt_ids=batch.prompt_token_ids[number],
            response_ids=batch.response_ids[number],
            mask=batch.loss_masks[number],
            logprobs=batch.rollout_logprobs[number],
            field_names={"mask": "loss_masks", "logprobs": "rollout_logprobs"},
        )


class _OpenRlhf(Foreign):
    sequences: list[Ids]
    attention_mask: list[Flags]
    action_mask: list[Flags]
    rollout_log_probs: list[Values]
    action_log_probs: list[Values] | None = None


def _openrlhf(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """Actions are the last tokens of a row: one fewer than tokens, or only the response's. Padding
    stands on both sides; ``attention_mask`` says what is a token."""
    batch = parsed(_OpenRlhf, document, at)
    for number in range(rows(batch, at)):
        ids, seen = batch.sequences[number], batch.attention_mask[number]
        action = _last(batch.action_mask[number], len(ids), f"{at}: sequence {number}: action_mask")
        logprobs = _last(
            batch.rollout_log_probs[number], len(ids), f"{at}: sequence {number}: rollout_log_probs"
        )
        old = batch.action_log_probs and _last(
            batch.action_log_probs[number], len(ids), f"{at}: sequence {number}: action_log_probs"
        )
        if len(seen) != len(ids):
            raise RolloutError(
                f"{at}: sequence {number}: {len(ids)} tokens, attention_mask {len(seen)} values"
            )
        kept = [i for i in range(len(ids)) if seen[i]]
        first = next((i for i in kept if action[i]), len(ids))
        drawn = [i for i in kept if i >= first]
        yield RawRollout(
            at=at,
            sequence=str(number),
            prompt_ids=[ids[i] for i in kept if i < first],
            response_ids=[ids[i] for i in drawn],
            mask=[action[i] or 0 for i in drawn],
            logprobs=[logprobs[i] for i in drawn],
            trainer_logprobs=[old[i] for i in drawn] if old else None,
            field_names={
                "response_ids": "sequences",
                "mask": "action_mask",
                "logprobs": "rollout_log_probs",
                "trainer_logprobs": "action_log_probs",
            },
        )


def _last(values: Sequence[float | None], tokens: int, name: str) -> Sequence[float | None]:
    """Values of the last tokens of a row, with None before them: one for each token."""
    if len(values) > tokens:
        raise RolloutError(f"{name} has {len(values)} values for {tokens} tokens")
    return [None] * (tokens - len(values)) + list(values)


class _Tensor(Foreign):
    data: list[float | int]


class _LossInputs(Foreign):
    target_tokens: Ids | _Tensor
    logprobs: Values | _Tensor
    mask: Flags | _Tensor | None = None


class _Datum(Foreign):
    loss_fn_inputs: _LossInputs


def _tinker(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """Targets are the tokens after the first; what stands before them is not in these fields."""
    found = parsed(_Datum, document, at).loss_fn_inputs
    targets, mask = _list(found.target_tokens), found.mask
    yield RawRollout(
        at=at,
        sequence=str(at.number or 0),
        response_ids=[_whole(it, f"{at}: target_tokens[{n}]") for n, it in enumerate(targets)],
        mask=None if mask is None else [it or 0 for it in _list(mask)],
        logprobs=_list(found.logprobs),
        sampling=Sampling(),
        field_names={"response_ids": "target_tokens"},
    )


def _whole(value: float | int | None, what: str) -> int:
    """An id that a tensor of floats may hold."""
    if value is None or value % 1:  # of NaN and infinity, too: their rest is NaN
        raise RolloutError(f"{what} is {value}; expected the id of a token")
    return int(value)


def _list(values: _Tensor | Sequence[float | int | None]) -> Sequence[float | int | None]:
    return values.data if isinstance(values, _Tensor) else values


class _Alone(Foreign):
    tensor: list[Values]


def _tensor(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """One tensor [sequences, tokens] alone: another of the same shape can be compared with it."""
    for number, row in enumerate(parsed(_Alone, document, at).tensor):
        yield RawRollout(at=at, sequence=str(number), logprobs=row)


LAYOUTS = (
    layout("a tensor of logprobs", TENSOR, _tensor),
    layout("verl batch", "prompts responses rollout_log_probs", _verl),
    layout("TRL server", "prompt_ids completion_ids logprobs", _trl_server),
    layout(
        "TRL batch",
        "prompt_ids prompt_mask completion_ids completion_mask sampling_per_token_logps",
        _trl_batch,
    ),
    layout(
        "SkyRL generator output", "prompt_token_ids response_ids loss_masks rollout_logprobs", _sky
    ),
    layout(
        "OpenRLHF experience", "sequences attention_mask action_mask rollout_log_probs", _openrlhf
    ),
    layout("tinker datum", "loss_fn_inputs", _tinker, loss_fn_inputs="target_tokens logprobs"),
)

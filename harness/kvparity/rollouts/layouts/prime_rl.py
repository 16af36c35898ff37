"""prime-rl and verifiers. Sources: prime-rl ``src/prime_rl/trainer/rl/token_export.py`` (schema
version 1), ``src/prime_rl/trainer/rl/data.py`` (``MicroBatch``), verifiers ``trajectory[].tokens``.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.layouts.base import Flags, Foreign, Ids, Values, layout, parsed
from kvparity.rollouts.record import FilePlace, RawRollout, RolloutError, Sampling
from kvparity_contracts.json_types import JsonObject


class _Export(Foreign):
    schema_version: int
    step: int
    rank: int = 0
    export_sequence_idx: int | None = None
    token_ids: Ids
    loss_mask: Flags
    inference_logprobs: Values
    trainer_logprobs: Values


def _export(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    line = parsed(_Export, document, at)
    if line.schema_version != 1:
        raise RolloutError(
            f"{at}: schema_version is {line.schema_version}; kvparity reads prime-rl's token "
            "exports of version 1"
        )
    number = at.number if line.export_sequence_idx is None else line.export_sequence_idx
    prompt = _untrained(line.loss_mask)
    yield RawRollout(
        at=at,
        sequence=f"step{line.step}.rank{line.rank}.{number}",
        prompt_ids=line.token_ids[:prompt],
        response_ids=line.token_ids[prompt:],
        mask=line.loss_mask[prompt:],
        logprobs=line.inference_logprobs[prompt:],
        trainer_logprobs=line.trainer_logprobs[prompt:],
        field_names={
            "response_ids": "token_ids",
            "mask": "loss_mask",
            "logprobs": "inference_logprobs",
        },
    )


def _untrained(mask: Flags) -> int:
    """Tokens before the first that counts: logprobs of a packed sequence stand at their own token,
    and those of the prompt are zeros."""
    return next((at for at, it in enumerate(mask) if it), len(mask))


class _Batch(Foreign):
    """A row [n], or a batch of one [1, n]."""

    input_ids: Ids | list[Ids]
    loss_mask: Flags | list[Flags]
    inference_logprobs: Values | list[Values]
    position_ids: Ids | list[Ids]


class _PackedRow(Foreign):
    input_ids: Ids
    loss_mask: Flags
    inference_logprobs: Values
    position_ids: Ids


def _batch(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """A packed row; a sequence begins where positions start at 0 again."""
    batch = parsed(_Batch, document, at).model_dump()
    one = {name: it[0] if it and isinstance(it[0], list) else it for name, it in batch.items()}
    row = parsed(_PackedRow, one, at)
    if len({len(it) for it in one.values()}) > 1:
        said = ", ".join(f"{name} {len(it)}" for name, it in one.items())
        raise RolloutError(f"{at}: its lists differ in length: {said}")
    starts = [i for i, position in enumerate(row.position_ids) if position == 0]
    for number, (start, stop) in enumerate(
        zip(starts, [*starts[1:], len(row.input_ids)], strict=True)
    ):
        prompt = start + _untrained(row.loss_mask[start:stop])
        yield RawRollout(
            at=at,
            sequence=f"{at.number or 0}.{number}",
            prompt_ids=row.input_ids[start:prompt],
            response_ids=row.input_ids[prompt:stop],
            mask=row.loss_mask[prompt:stop],
            logprobs=row.inference_logprobs[prompt:stop],
            field_names={"response_ids": "input_ids", "mask": "loss_mask"},
        )


class _Tokens(Foreign):
    prompt_ids: Ids
    completion_ids: Ids
    completion_mask: Flags
    completion_logprobs: Values
    routed_experts: list[list[list[int]]] | None = None
    temperature: float | None = None


def _tokens(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    yield _turn(parsed(_Tokens, document, at), at, str(at.number or 0))


def _turn(tokens: _Tokens, at: FilePlace, sequence: str) -> RawRollout:
    return RawRollout(
        at=at,
        sequence=sequence,
        prompt_ids=tokens.prompt_ids,
        response_ids=tokens.completion_ids,
        mask=tokens.completion_mask,
        logprobs=tokens.completion_logprobs,
        sampling=Sampling(tokens.temperature),
        routes=tokens.routed_experts,
        field_names={
            "routes": "routed_experts",
            "response_ids": "completion_ids",
            "mask": "completion_mask",
            "logprobs": "completion_logprobs",
        },
    )


class _Turn(Foreign):
    tokens: _Tokens


class _Trajectory(Foreign):
    trajectory: list[_Turn]


def _trajectory(document: JsonObject, at: FilePlace, anomalies: Anomalies) -> Iterator[RawRollout]:
    """Each turn is a sequence: its prompt holds the turns before it."""
    for number, turn in enumerate(parsed(_Trajectory, document, at).trajectory):
        yield _turn(turn.tokens, at, f"{at.number or 0}.turn{number}")


_TOKENS = "prompt_ids completion_ids completion_mask completion_logprobs"
LAYOUTS = (
    layout(
        "prime-rl token export",
        "schema_version token_ids loss_mask inference_logprobs trainer_logprobs",
        _export,
    ),
    layout("prime-rl micro batch", "input_ids loss_mask inference_logprobs position_ids", _batch),
    layout("prime-rl tokens", _TOKENS, _tokens),
    layout("verifiers trajectory", "trajectory", _trajectory, trajectory="tokens"),
)

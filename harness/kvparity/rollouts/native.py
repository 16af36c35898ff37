"""kvparity's own file: JSON Lines, a header and one line for each sequence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from kvparity.core.values import sentence
from kvparity.rollouts.anomalies import Anomalies
from kvparity.rollouts.check import Checker
from kvparity.rollouts.record import (
    FilePlace,
    Logprobs,
    RawRollout,
    Rollout,
    RolloutError,
    Sampling,
)
from kvparity_contracts.json_types import JsonObject

FORMAT: Literal["kvparity-rollouts"] = "kvparity-rollouts"
VERSION: Literal[1] = 1
Id = Annotated[int, Field(ge=0)]
Number = float | Literal["nan", "inf", "-inf"] | None
"""A natural logarithm as an exact float32; null where there is none."""


class Header(BaseModel):
    """The first line."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: Literal["kvparity-rollouts"] = FORMAT
    version: Literal[1] = VERSION
    made_by: dict[str, JsonValue] = Field(
        default={}, description="What produced the tokens: engine, version, model, flags."
    )


class RolloutLine(BaseModel):
    """Every further line: one sequence."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sequence: str = Field(description="A name of its own in the file.")
    prompt_ids: list[Id] | None = Field(description="Tokens of the prompt, without padding.")
    response_ids: list[Id] | None = Field(description="Tokens that were drawn or inserted.")
    logprobs: list[Number] | None = Field(
        description="Of each response token, by the side that drew it."
    )
    mask: list[Literal[0, 1]] | None = Field(
        default=None, description="1 where a response token counts; absent: all do."
    )
    trainer_logprobs: list[Number] | None = Field(
        default=None, description="Of each response token, by the side that trains on it."
    )
    prompt_logprobs: list[Number] | None = Field(
        default=None, description="Of each prompt token; the first has none."
    )
    temperature: float | None = Field(default=None, description="With which tokens were drawn.")
    top_p: float | None = Field(default=None, description="With which tokens were drawn.")
    processed: bool | None = Field(
        default=None, description="Whether logprobs are those after temperature and top-p."
    )
    weight_versions: list[str] = Field(
        default=[], description="Of the weights that drew the tokens, in order."
    )
    routes: list[list[list[Id]]] | None = Field(
        default=None, description="Experts of each token: [tokens, layers, experts]."
    )


def raw(line: RolloutLine, at: FilePlace) -> RawRollout:
    """The sequence of one line, not looked at yet."""
    return RawRollout(
        at=at,
        sequence=line.sequence,
        prompt_ids=line.prompt_ids,
        response_ids=line.response_ids,
        mask=line.mask,
        logprobs=line.logprobs,
        trainer_logprobs=line.trainer_logprobs,
        prompt_logprobs=line.prompt_logprobs,
        sampling=Sampling(line.temperature, line.top_p, line.processed),
        weight_versions=tuple(line.weight_versions),
        routes=line.routes,
    )


class RolloutWriter:
    """Writes sequences as they come; each is on the disk when :meth:`write` returns.

    Use it as a context manager, or call :meth:`close`. An existing file is never written over.

    Raises:
        RolloutError: ``path`` exists, or cannot be written.
    """

    def __init__(self, path: str | Path, made_by: Mapping[str, JsonValue] | None = None) -> None:
        self.path = Path(path)
        try:
            self._file = self.path.open("x", encoding="utf-8")
        except FileExistsError:
            raise RolloutError(f"{path} exists; expected a new file") from None
        except OSError as error:
            raise RolloutError(f"{path} cannot be written: {error.strerror}") from error
        self._names: set[str] = set()
        self._line(Header(made_by=dict(made_by or {})))

    def write(
        self,
        prompt_ids: Sequence[int],
        response_ids: Sequence[int],
        logprobs: Sequence[float],
        *,
        mask: Sequence[int] | None = None,
        trainer_logprobs: Sequence[float] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        processed: bool | None = None,
        weight_version: str | None = None,
        routes: Sequence[Sequence[Sequence[int]]] | None = None,
        sequence: str | None = None,
    ) -> None:
        """One sequence. Lists, numpy arrays and CPU tensors of one dimension will do.

        Raises:
            RolloutError: a list that does not fit, an id below 0, a logprob above 0, a name twice.
        """
        name = str(len(self._names)) if sequence is None else sequence
        found = RawRollout(
            at=FilePlace(self.path),
            sequence=name,
            prompt_ids=[int(it) for it in prompt_ids],
            response_ids=[int(it) for it in response_ids],
            mask=None if mask is None else [float(it) for it in mask],
            logprobs=[float(it) for it in logprobs],
            trainer_logprobs=None
            if trainer_logprobs is None
            else [float(it) for it in trainer_logprobs],
            sampling=Sampling(temperature, top_p, processed),
            weight_versions=() if weight_version is None else (weight_version,),
            routes=routes,
        )
        self.write_rollout(Checker(Anomalies()).rollout(found))

    def write_rollout(self, rollout: Rollout) -> None:
        """One sequence that was read elsewhere.

        Raises:
            RolloutError: its name is in the file already.
        """
        if rollout.sequence in self._names:
            raise RolloutError(f"{self.path}: sequence {rollout.sequence} is written twice")
        self._names.add(rollout.sequence)
        self._line(line_of(rollout))

    def _line(self, line: BaseModel) -> None:
        text = json.dumps(line.model_dump(exclude_defaults=False), allow_nan=False)
        self._file.write(text + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()

    def __enter__(self) -> RolloutWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def line_of(rollout: Rollout) -> RolloutLine:
    """The sequence as a file has it.

    A token without a logprob still counts, so that whoever reads it finds it missing.
    """
    counts = rollout.mask if rollout.unusable is None else rollout.mask | rollout.unusable
    return RolloutLine(
        sequence=rollout.sequence,
        prompt_ids=None if rollout.prompt_ids is None else rollout.prompt_ids.tolist(),
        response_ids=None if rollout.response_ids is None else rollout.response_ids.tolist(),
        logprobs=_numbers(rollout.logprobs),
        mask=[int(it) for it in counts],  # type: ignore[misc]  # 0 and 1 by its dtype
        trainer_logprobs=_numbers(rollout.trainer_logprobs),
        prompt_logprobs=_numbers(rollout.prompt_logprobs),
        temperature=rollout.sampling.temperature,
        top_p=rollout.sampling.top_p,
        processed=rollout.sampling.processed,
        weight_versions=list(rollout.weight_versions),
        routes=None if rollout.routes is None else rollout.routes.tolist(),
    )


def _numbers(values: Logprobs | None) -> list[Number] | None:
    return None if values is None else [_number(it) for it in values.tolist()]


def _number(value: float) -> Number:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else "inf" if value > 0 else "-inf"


def made_by(path: Path) -> JsonObject:
    """What a file of ours says of what produced its tokens.

    Raises:
        RolloutError: its first line is no header.
    """
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    try:
        return Header.model_validate_json(first).made_by
    except ValidationError as error:
        raise RolloutError(f"{path}:1 is no header of {FORMAT}: {sentence(error)}") from error


def is_header(document: object) -> bool:
    """Whether a first line says that the file is kvparity's, of whatever version."""
    return isinstance(document, dict) and document.get("format") == FORMAT

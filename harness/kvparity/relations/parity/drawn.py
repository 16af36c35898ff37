"""Tokens that a rollout draws for a contract's workloads, once for a run: a file in its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from kvparity.core.errors import UnsupportedError
from kvparity.core.rng import sample
from kvparity.gaps.model_side import ModelSide
from kvparity.plan.workload import Prompts, fill
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.asked import Kernels
from kvparity.relations.parity.line import SideFacts
from kvparity.relations.parity.opened import (
    facts_of_model,
    facts_of_server,
    format_unproved,
    model_of,
)
from kvparity.rollouts import Rollout, RolloutWriter
from kvparity.rollouts.native import made_by
from kvparity.rollouts.record import Ids, Logprobs, Sampling
from kvparity.servers.values import Server
from kvparity.subjects.server.subject import ServedModel, connected
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.paths import PathName
from kvparity_contracts.served import ServerSubject
from kvparity_contracts.sides import ModelSideSpec, ServerSide, Sides

FILE = "rollouts.jsonl"
"""In the run folder: also for `kvparity drift`."""


@dataclass(frozen=True)
class DrawnRollout:
    """``ids``: which tokens, for a case's line. ``unproved``: why it is not known that they were
    drawn as was asked, or None."""

    path: Path
    facts: SideFacts
    ids: str
    unproved: str | None


def drawn(kernels: Kernels, sides: Sides) -> DrawnRollout:
    """The file; a run that is resumed or replayed has it.

    Raises:
        UnsupportedError, SubjectError: the rollout cannot draw so, or fails.
    """
    if kernels.folder is None:
        raise UnsupportedError(
            "a rollout that draws keeps its tokens in a run folder: none is given"
        )
    path, side = kernels.folder / FILE, sides.rollout
    temperature = 1.0 if sides.temperature is None else sides.temperature
    if isinstance(side, ServerSide):
        server = connected(side)
        facts, unproved = facts_of_server(side, server), format_unproved(side, server)
        if not path.exists():
            _by_server(kernels, side, server, temperature).write(path)
    else:
        assert isinstance(side, ModelSideSpec), "what is recorded is not drawn"
        model, unproved = model_of(kernels, side), None
        facts = facts_of_model(kernels, side, model.settings)
        if not path.exists():
            _by_model(kernels, model, temperature).write(path)
    told = made_by(path).get("unproved")
    ids = f"drawn into {FILE}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return DrawnRollout(path, facts, ids, unproved or (told if isinstance(told, str) else None))


@dataclass(frozen=True)
class _Made:
    by: dict[str, JsonValue]
    sequences: list[Rollout]

    def write(self, path: Path) -> None:
        """Whole, or not at all."""
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        with RolloutWriter(part, self.by) as writer:
            for each in self.sequences:
                writer.write_rollout(each)
        part.replace(path)


def _by_server(kernels: Kernels, side: ServerSide, server: Server, temperature: float) -> _Made:
    own = side.model_dump(exclude={"dtype", "path"})
    subject = ServerSubject(**own, draws="sampled" if temperature else "greedy")
    numerics = Numerics(execution=("float32",), temperatures=(temperature or 1.0,))
    contract = kernels.contract.model_copy(update={"numerics": numerics})
    served = ServedModel(subject, server, contract.seed, any_logprobs=True)
    setting = Setting(contract, served)
    processed = {"raw": False, "processed": True}.get(served.semantics)
    sampling = Sampling(temperature, None, processed)
    unproved: str | None = None
    sequences = []
    for workload in contract.workloads:
        plans = setting.plans(workload.name)
        prompts = plans.prompts.prompts
        tokens = [list(each) for each in prompts]
        record = PathRun(setting, served, plans, PathName(side.path), tokens).run()
        unproved = unproved or record.unproved
        owner = np.array([sequence for sequence, _ in record.index])
        for number, name in enumerate(plans.prompts.ids):
            rows = owner == number
            ids = record.targets.numpy()[rows]
            logprobs = record.values[:, 0].numpy()[rows]
            sequences.append(
                _sequence(name, plans.prompts.prompts[number], ids, logprobs, sampling)
            )
    by: dict[str, JsonValue] = {
        "engine": server.facts.words(),
        "path": side.path,
        "unproved": unproved,
    }
    return _Made(by, sequences)


def _by_model(kernels: Kernels, model: ModelSide, temperature: float) -> _Made:
    processed = model.settings.processed
    sampling = Sampling(temperature, None, processed)
    contract = kernels.contract
    sequences: list[Rollout] = []
    for workload in contract.workloads:
        try:
            prompts = fill(workload, seed=contract.seed, vocab=model.vocabulary)
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        sequences += _continued(model, prompts, contract.seed, temperature, sampling)
    scored = [replace(each, logprobs=logprobs) for each, logprobs in model.score(iter(sequences))]
    return _Made({"engine": "transformers", "settings": model.settings.words()}, scored)


def _continued(
    model: ModelSide, prompts: Prompts, seed: int, temperature: float, sampling: Sampling
) -> Iterator[Rollout]:
    """Token by token, from whole forward passes: ids alone, which are scored as any others."""
    for name, prompt in zip(prompts.ids, prompts.prompts, strict=True):
        ids = np.array(prompt, dtype=np.int64)
        for _ in range(prompts.generate):
            row = model.row_behind(ids).float()
            token = (
                sample(row, temperature=temperature, seed=seed, name=name, position=ids.size)
                if temperature
                else int(row.argmax())
            )
            ids = np.append(ids, token)
        response = ids[len(prompt) :]
        yield _sequence(name, prompt, response, np.zeros(response.size, np.float32), sampling)


def _sequence(
    name: str, prompt: Sequence[int] | Ids, ids: Ids, logprobs: Logprobs, sampling: Sampling
) -> Rollout:
    return Rollout(
        sequence=name,
        prompt_ids=np.array(prompt, dtype=np.int64),
        response_ids=ids,
        mask=np.ones(ids.size, dtype=np.bool_),
        logprobs=logprobs,
        sampling=sampling,
    )

"""Run one unit: roll out, rescore by every path, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvparity.compare import Comparison, accuracy, invariance
from kvparity.counter import sample
from kvparity.paths import build
from kvparity.plan import Case, Unit
from kvparity.record import Choose, Record, Watch, run
from kvparity.record import Tokens as Tokens
from kvparity.schedule import Member, Plan
from kvparity.subject import Subject, UnsupportedError
from kvparity.workload import Prompts, fill, text_tokens
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName


@dataclass(frozen=True)
class Setting:
    """What the units of one numerics share."""

    contract: Contract
    subject: Subject

    def prompts(self, workload: str) -> Prompts:
        """The workload's prompts, checked against the subject's vocabulary and positions.

        Raises:
            UnsupportedError: a sequence is longer than the subject's positions, or a token id is
                outside its vocabulary.
        """
        model = next(w for w in self.contract.workloads if w.name == workload)
        try:
            prompts = fill(model, seed=self.contract.seed, vocab=self.subject.vocab)
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        if prompts.longest > self.subject.max_positions:
            raise UnsupportedError(
                f"workload {workload}: its longest sequence has {prompts.longest} tokens, but the "
                f"subject has {self.subject.max_positions} positions; shorten prompt or generate"
            )
        return prompts


class Runner:
    """Runs the paths of one workload, each once, over the same tokens."""

    def __init__(self, setting: Setting, prompts: Prompts, tokens: Tokens | None) -> None:
        self.setting, self.prompts = setting, prompts
        self.tokens = tokens
        self.records: dict[PathName, Record] = {}
        self.seconds: dict[str, float] = {}

    def rollout(self, path: PathName) -> None:
        """Draw the tokens by ``path``, unless they are known; keeps the path's record."""
        if self.tokens is not None:
            return
        if not self.setting.subject.vocab:
            self.tokens = [[0] * self.prompts.length(i) for i in range(len(self.prompts.ids))]
            return
        self.tokens = [list(p) for p in self.prompts.prompts]
        self.record(path, choose=self._choose())

    def _choose(self) -> Choose:
        contract = self.setting.contract
        temperatures = contract.numerics.temperatures

        def choose(sequence: int, position: int, row: Tensor) -> int:
            return sample(
                row,
                temperature=temperatures[sequence % len(temperatures)],
                seed=contract.seed,
                name=self.prompts.ids[sequence],
                position=position,
            )

        return choose

    def record(
        self,
        path: PathName,
        *,
        choose: Choose | None = None,
        keep: frozenset[tuple[int, int]] = frozenset(),
    ) -> Record:
        """The record of ``path``, run now if it was not run before."""
        if path not in self.records or keep:
            start = time.perf_counter()
            self.records[path] = run_path(
                self.setting, self.setting.subject, self.prompts, path, self.known(),
                choose=choose, keep=keep,
            )  # fmt: skip
            self.seconds[str(path)] = round(time.perf_counter() - start, 3)
        return self.records[path]

    def known(self) -> Tokens:
        """The tokens, once :meth:`rollout` has run."""
        if self.tokens is None:
            raise RuntimeError("rollout() comes first")
        return self.tokens


def run_path(
    setting: Setting,
    subject: Subject,
    prompts: Prompts,
    path: PathName,
    tokens: Tokens,
    *,
    choose: Choose | None = None,
    keep: frozenset[tuple[int, int]] = frozenset(),
    watch: Watch | None = None,
) -> Record:
    """Run one path over the workload's own tokens; strangers and donors bring theirs."""
    seed = setting.contract.seed
    plan: Plan = build(path, prompts, seed=seed)
    own, vocab = len(prompts.ids), subject.vocab
    others = [_others(plan, member, tokens, seed, vocab) for member in plan.members[own:]]
    return run(
        subject,
        plan,
        list(tokens) + others,
        temperatures=setting.contract.numerics.temperatures,
        choose=choose,
        keep=keep,
        before=[_unlike(ids, vocab) for ids in tokens] if plan.warm_up else None,
        watch=watch,
    )


def _others(plan: Plan, member: Member, tokens: Tokens, seed: int, vocab: int) -> list[int]:
    """Tokens of a stranger, or of a donor, which begins like one of the workload's own."""
    if member.like:
        own = tokens[[each.id for each in plan.members].index(member.like)]
        return own[: member.shared] + _unlike(own[member.shared : member.length], vocab)
    if vocab:
        return list(text_tokens(seed, member.id, member.length))
    return [0] * member.length


def _unlike(ids: Sequence[int], vocab: int) -> list[int]:
    """Ids that differ from the given ones everywhere; of an attention subject, 1 (see there)."""
    return [(each + 1) % max(vocab, 2) for each in ids]


def require_paths(setting: Setting, unit: Unit, prompts: Prompts) -> None:
    """Raise ``UnsupportedError`` before any work if the subject cannot do one of the paths."""
    paths = {unit.rollout} if setting.subject.vocab else set()
    paths |= {p for case in unit.cases for p in (case.path, case.reference) if p is not None}
    for path in sorted(paths, key=str):
        plan = build(path, prompts, seed=setting.contract.seed)
        reason = setting.subject.unsupported(plan)
        longest = max(member.length for member in plan.members)
        if reason is None and longest > setting.subject.max_positions:
            reason = (
                f"a neighbour in its batch has {longest} tokens, but the subject has "
                f"{setting.subject.max_positions} positions"
            )
        if reason is not None:
            raise UnsupportedError(f"path {path}: {reason}")


def run_unit(
    setting: Setting,
    unit: Unit,
    *,
    tokens: Tokens | None,
    done: frozenset[str],
    emit: Callable[[Case, Comparison, Record | None, Record], None],
) -> dict[str, Any]:
    """Run what is missing of ``unit``; ``emit`` gets every case as it ends.

    Returns the unit's evidence: tokens, what was observed, what was loaded, seconds by path.
    """
    prompts = setting.prompts(unit.workload)
    require_paths(setting, unit, prompts)
    runner = Runner(setting, prompts, tokens)
    runner.rollout(unit.rollout)
    wanted: Tensor | None = None
    for case in unit.cases:
        if case.id in done:
            continue
        candidate = runner.record(case.path)
        if case.reference is not None:
            reference = runner.record(case.reference)
            emit(case, invariance(reference, candidate, column=case.column), reference, candidate)
            continue
        if wanted is None:
            wanted = oracle_values(setting, prompts, runner.known())
        emit(case, judge_accuracy(setting.contract, case, candidate, wanted), None, candidate)
    return {
        "unit": unit.id,
        "sequences": [
            {"id": name, "prompt": len(prompts.prompts[i]), "ids": runner.known()[i]}
            for i, name in enumerate(prompts.ids)
        ],
        "subject": dict(setting.subject.describe()),
        "observed": {str(p): dict(r.observed) for p, r in runner.records.items()},
        "launches": {str(p): r.launches for p, r in runner.records.items()},
        "seconds": runner.seconds,
    }


def oracle_values(setting: Setting, prompts: Prompts, tokens: Tokens) -> Tensor:
    """Float64 values of all compared rows, in the order of a record."""
    subject = setting.subject
    parts = []
    for i, own in enumerate(tokens):
        length = len(prompts.prompts[i])
        rows = range(length - 1, prompts.length(i) - 1)
        member = build(PathName("prefill"), prompts, seed=0).members[i]
        found = subject.oracle(member, own, rows).double()
        if subject.vocab:
            targets = torch.tensor(own[length:], device=found.device)[:, None]
            found = torch.cat(
                [
                    torch.log_softmax(found / t, dim=-1).gather(1, targets)
                    for t in setting.contract.numerics.temperatures
                ],
                dim=1,
            )
        parts.append(found)
    return torch.cat(parts)


def judge_accuracy(contract: Contract, case: Case, candidate: Record, wanted: Tensor) -> Comparison:
    """Hold one case against the limits of its check."""
    check = next(c for c in contract.checks if c.name == case.check)
    if not isinstance(check, Accuracy):
        raise TypeError(f"{case.check} is no accuracy check")
    limits = check.limits_for(case.numerics.execution).given()  # type: ignore[arg-type] # a dtype's name
    if case.column is None:
        wanted = wanted[:, : candidate.values.shape[1]]  # a pair that returns no LSE
    return accuracy(candidate, wanted, limits, column=case.column)


def case_json(case: Case, result: Comparison) -> dict[str, Any]:
    """The report's entry for one case."""
    found = result.as_json()
    outcome = found.pop("outcome")
    return {
        "id": case.id,
        "check": case.check,
        "relation": case.relation,
        "workload": case.workload,
        "reference": None if case.reference is None else str(case.reference),
        "path": str(case.path),
        "dtype": case.numerics.execution,
        "kv_cache": case.numerics.kv_cache,
        "temperature": case.temperature,
        "verdict": outcome,
        **found,
    }

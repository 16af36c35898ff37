"""Run one unit: roll out, rescore by every path, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.core import doing
from kvparity.core.errors import OracleError, UnsupportedError
from kvparity.core.lse import lse_rounded
from kvparity.core.rng import sample
from kvparity.plan.cases import Case, Unit
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import Held
from kvparity.record.execute import Choose, Record
from kvparity.record.execute import Tokens as Tokens
from kvparity.record.path_run import Setting as Setting
from kvparity.record.path_run import Side
from kvparity.record.path_run import run_path as run_path
from kvparity.relations.accuracy import Against, accuracy, against
from kvparity.relations.bits_and_limits import Comparison, invariance, same_bits
from kvparity.relations.cache_relations import compare_caches, probe, trace
from kvparity.relations.explain import named, nan_cause
from kvparity.report.case_line import case_words
from kvparity.report.lines import PathLine, UnitLine
from kvparity.report.lines import Sequence as Drawn
from kvparity.report.unit_paths import Before, UnitPaths
from kvparity.run.recheck import work as recheck
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName
from kvparity_contracts.subjects import Attention


class Runner:
    """Runs the paths of one workload, each once, over the same tokens."""

    def __init__(self, setting: Setting, plans: WorkloadPlans, tokens: Tokens | None) -> None:
        self.setting, self.plans, self.prompts = setting, plans, plans.prompts
        self.tokens = tokens
        self.records: dict[PathName, Record] = {}
        self.held: dict[PathName, Held] = {}
        self.probed: dict[PathName, Record] = {}
        self.repeated: dict[PathName, bool] = {}
        self.causes: dict[PathName, str | None] = {}
        self.seconds: dict[str, float] = {}

    def rollout(self, path: PathName) -> None:
        """Draw the tokens by ``path``, unless they are known; keeps the path's record."""
        if self.tokens is not None:
            return
        if not self.setting.subject.vocab:
            self.tokens = [[0] * self.prompts.length(i) for i in range(len(self.prompts.ids))]
            return
        self.tokens = [list(p) for p in self.prompts.prompts]
        self.record(path, choose=self.choosing())

    def choosing(self) -> Choose:
        """What draws the tokens of a rollout."""
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
                self.setting, self.setting.subject, self.plans, path, self.known(),
                choose=choose, keep=keep,
            )  # fmt: skip
            self.seconds[str(path)] = round(time.perf_counter() - start, 3)
        return self.records[path]

    def side(self, path: PathName) -> Side:
        """What a path computes."""
        return Side(self.setting, self.setting.subject, self.plans, path, self.known())

    def hold(self, path: PathName) -> Held:
        """What the cache of ``path`` holds at the end, looked at once."""
        if path not in self.held:
            start = time.perf_counter()
            self.held[path] = self.side(path).hold()
            self.seconds[str(path)] = round(time.perf_counter() - start, 3)
            self.records.setdefault(path, self.held[path].record)
        return self.held[path]

    def repeats(self, path: PathName) -> bool:
        """Whether ``path``, when rerun, repeats its bits."""
        if path not in self.repeated:
            self.repeated[path] = same_bits(self.record(path), self.side(path).run())
        return self.repeated[path]

    def nan_cause(self, path: PathName) -> str | None:
        """Why rows of ``path`` are NaN, where that can be found out; None too where none is."""
        if path not in self.causes:
            self.causes[path] = nan_cause(self.side(path), self.record(path))
        return self.causes[path]

    def known(self) -> Tokens:
        """The tokens, once :meth:`rollout` has run."""
        if self.tokens is None:
            raise RuntimeError("rollout() comes first")
        return self.tokens


def require_paths(setting: Setting, unit: Unit, plans: WorkloadPlans) -> None:
    """Raise ``UnsupportedError`` before any work if the subject cannot do one of the paths."""
    paths = {unit.rollout} if setting.subject.vocab else set()
    paths |= {p for case in unit.cases for p in (case.path, case.reference) if p is not None}
    for path in sorted(paths, key=str):
        plan = plans.of(path)
        reason = setting.subject.unsupported(plan)
        longest = max(member.length for member in plan.members)
        if reason is None and longest > setting.subject.max_positions:
            reason = (
                f"a neighbour in its batch has {longest} tokens, but the subject has "
                f"{setting.subject.max_positions} positions"
            )
        if reason is not None:
            raise UnsupportedError(f"path {path}: {reason}")


Kept = Record | Held | Against
Emit = Callable[[Case, Comparison, Kept | None, Kept], None]
"""Gets every case as it ends, with what both sides gave: of float64, how far the path is off."""


def run_unit(
    setting: Setting,
    unit: Unit,
    *,
    tokens: Tokens | None,
    done: frozenset[str],
    emit: Emit,
    before: Before | None = None,
    ran: Callable[[PathLine], None] = lambda line: None,
) -> UnitLine:
    """Run what is missing of ``unit``: the cases not ``done``.

    ``ran`` gets a line for every path, before a case rests on it.

    Returns the unit's evidence: tokens, what was observed, what was loaded, seconds by path. It is
    the same whether the unit ran in one go or was interrupted.
    """
    before = before or Before()
    plans = setting.plans(unit.workload)
    prompts = plans.prompts
    require_paths(setting, unit, plans)
    runner = Runner(setting, plans, tokens)
    doing.task(f"rollout by {unit.rollout} over {unit.workload} in {unit.numerics.execution}")
    runner.rollout(unit.rollout)
    runner.repeated = {PathName.parse(path): same for path, same in before.repeats.items()}
    paths = UnitPaths(
        unit.id,
        before.ran,
        ran,
        lambda path, record: recheck.recorded(plans, unit.id, path, record),
    )
    paths.look(runner.records, runner.probed, runner.seconds)
    wanted: list[Tensor] = []
    for case in in_order(unit.cases):
        if case.id not in done:
            found = run_case(setting, runner, case, wanted)
            paths.look(runner.records, runner.probed, runner.seconds)
            emit(case, *found)
    sequences = tuple(
        Drawn(id=name, prompt=len(prompts.prompts[i]), ids=tuple(runner.known()[i]))
        for i, name in enumerate(prompts.ids)
    )
    return paths.line(sequences, setting.subject.describe(paths.observed()))


def in_order(cases: Sequence[Case]) -> list[Case]:
    """The order in which a unit runs them.

    Caches come first: what is computed while they are looked at serves the other cases, too.
    """
    return sorted(cases, key=lambda each: each.relation != "cache")


def run_case(
    setting: Setting, runner: Runner, case: Case, wanted: list[Tensor]
) -> tuple[Comparison, Kept | None, Kept]:
    """One case: its result, and what both sides gave. ``wanted`` keeps the oracle's values."""
    doing.task(case_words(case))
    if case.relation == "liveness":
        found, probed = probe(runner.side(case.path), case.check)
        runner.probed[case.path] = probed
        return found, None, probed
    if case.relation == "trace":
        found, traced = trace(runner.side(case.path))
        runner.probed[case.path] = traced
        return found, None, traced
    if case.relation == "cache" and case.reference is not None:
        held = runner.hold(case.reference), runner.hold(case.path)
        return compare_caches(runner.side(case.reference), runner.side(case.path), held)
    candidate = runner.record(case.path)
    if case.reference is not None:
        reference = runner.record(case.reference)
        found = named(setting.subject, invariance(reference, candidate, column=case.column))
        if found.outcome == "differs" and not runner.repeated:  # one case of a unit tells enough
            sides = {str(path): runner.repeats(path) for path in (case.reference, case.path)}
            found = replace(found, details={**found.details, "repeats": sides})
        paths = case.reference, case.path
        return _with_cause(runner, paths, found), reference, candidate
    if not wanted:
        try:
            wanted.append(oracle_values(setting, runner.plans, runner.known()))
        except OracleError as error:  # the other checks need no oracle
            return Comparison("error", str(error)), None, candidate
    found = named(setting.subject, judge_accuracy(setting.contract, case, candidate, wanted[0]))
    if not found.details:  # nothing could be measured
        return found, None, candidate
    exact = _compared(setting.contract, case, candidate, wanted[0])
    return found, against(candidate, exact, column=case.column), candidate


def _with_cause(runner: Runner, paths: Sequence[PathName], found: Comparison) -> Comparison:
    """The same with the cause of a NaN, where it can be found out."""
    for path in paths:
        if cause := runner.nan_cause(path):
            return replace(found, reason=f"{found.reason}: on path {path} {cause}")
    return found


def oracle_values(setting: Setting, plans: WorkloadPlans, tokens: Tokens) -> Tensor:
    """Float64 values of all compared rows, in the order of a record."""
    subject, prompts = setting.subject, plans.prompts
    parts = []
    for i, own in enumerate(tokens):
        length = len(prompts.prompts[i])
        rows = range(length - 1, prompts.length(i) - 1)
        found = subject.oracle(plans.members[i], own, rows).double()
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
        raise TypeError(f"{case.check} is not an accuracy check")
    limits = check.limits_for(case.numerics.execution).given()
    exact = _compared(contract, case, candidate, wanted)
    return accuracy(candidate, exact, limits, column=case.column)


def _compared(contract: Contract, case: Case, candidate: Record, wanted: Tensor) -> Tensor:
    """The oracle's values of what the path gave: of a pair that returns no LSE, O alone."""
    if case.column is not None:
        return wanted
    pair, found = contract.subject, candidate.values
    wanted = wanted[:, : found.shape[1]]
    if not isinstance(pair, Attention):
        return wanted
    return lse_rounded(found, wanted, pair.heads.query * pair.heads.dim)

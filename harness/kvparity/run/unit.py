"""Run one unit: roll out, rescore by every path, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.core import doing
from kvparity.core.errors import OracleError, UnsupportedError
from kvparity.core.rng import sample
from kvparity.plan.cases import Case, Unit
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CacheSnapshot
from kvparity.record.execute import Choose, Record
from kvparity.record.execute import Tokens as Tokens
from kvparity.record.path_run import PathRun
from kvparity.record.path_run import Setting as Setting
from kvparity.relations.asked import Asked, ComparedSide, RelationAnswer, Sided
from kvparity.relations.bits_and_limits import Comparison, same_bits
from kvparity.relations.explain import nan_cause
from kvparity.relations.registry import path_relation
from kvparity.report.case_line import case_words
from kvparity.report.lines import PathLine, UnitLine
from kvparity.report.lines import Sequence as Drawn
from kvparity.report.unit_paths import Before, UnitPaths
from kvparity.run.recheck import work as recheck
from kvparity_contracts.paths import PathName


class Runner:
    """Runs the paths of one workload, each once, over the same tokens."""

    def __init__(self, setting: Setting, plans: WorkloadPlans, tokens: Tokens | None) -> None:
        self.setting, self.plans, self.prompts = setting, plans, plans.prompts
        self.tokens = tokens
        self.records: dict[PathName, Record] = {}
        self.held: dict[PathName, CacheSnapshot] = {}
        self.probed: dict[PathName, Record] = {}
        self.repeated: dict[PathName, bool] = {}
        self.causes: dict[PathName, str | None] = {}
        self.seconds: dict[str, float] = {}
        self._exact: Tensor | None = None

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
            self.records[path] = self.side(path).run(choose=choose, keep=keep)
            self.seconds[str(path)] = round(time.perf_counter() - start, 3)
        return self.records[path]

    def side(self, path: PathName) -> PathRun:
        """What a path computes."""
        return PathRun(self.setting, self.setting.subject, self.plans, path, self.known())

    def take_snapshot(self, path: PathName) -> CacheSnapshot:
        """What the cache of ``path`` holds at the end, looked at once."""
        if path not in self.held:
            start = time.perf_counter()
            self.held[path] = self.side(path).take_snapshot()
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

    def exact(self) -> Tensor:
        """Float64 values of all compared rows, in the order of a record."""
        if self._exact is None:
            self._exact = oracle_values(self.setting, self.plans, self.known())
        return self._exact

    def asked(self, case: Case) -> Asked:
        """What a case asks of its relation: every path is run once."""
        check, column = self.setting.contract.check(case.check), case.column

        def reference() -> ComparedSide:
            if case.reference is None:
                raise TypeError(f"{case.id} has no reference")
            return self.computed(case.reference)

        return Asked(
            check, case.numerics.execution, column, self.computed(case.path), reference, self.exact
        )

    def computed(self, path: PathName) -> ComparedSide:
        """One side of a case."""
        return ComparedSide(
            self.side(path), lambda: self.record(path), lambda: self.take_snapshot(path)
        )

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


Emit = Callable[[Case, Comparison, Sided | None, Sided], None]
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
        plans.steps,
        chosen=prompts.rows is not None,
    )
    paths.look(runner.records, runner.probed, runner.seconds)
    for case in in_order(unit.cases):
        if case.id not in done and not path_relation(case.relation).apart:
            answer = run_case(runner, case)
            paths.look(runner.records, runner.probed, runner.seconds)
            emit(case, answer.found, answer.reference, answer.candidate)
    sequences = tuple(
        Drawn(id=name, prompt=len(prompts.prompts[i]), ids=tuple(runner.known()[i]))
        for i, name in enumerate(prompts.ids)
    )
    return paths.line(sequences, setting.subject.describe(paths.observed()))


def in_order(cases: Sequence[Case]) -> list[Case]:
    """The order in which a unit runs them.

    Caches come first: what is computed while they are looked at serves the other cases, too.
    """
    return sorted(cases, key=lambda each: not path_relation(each.relation).first)


def run_case(runner: Runner, case: Case) -> RelationAnswer:
    """One case: its result, and what both sides gave."""
    doing.task(case_words(case))
    relation, asked = path_relation(case.relation), runner.asked(case)
    try:
        answer = relation.compare(asked)
    except OracleError as error:  # the other checks need no oracle
        return RelationAnswer(Comparison("error", str(error)), asked.candidate.record())
    if relation.probes and isinstance(answer.candidate, Record):
        runner.probed[case.path] = answer.candidate
    found = relation.explained(asked, answer.found, runner)
    if runner.prompts.rows is not None and relation.file.by_token:
        found = replace(found, of=runner.prompts.every_row)
    return replace(answer, found=found)


def oracle_values(setting: Setting, plans: WorkloadPlans, tokens: Tokens) -> Tensor:
    """Float64 values of all compared rows, in the order of a record."""
    subject, prompts = setting.subject, plans.prompts
    parts = []
    for i, own in enumerate(tokens):
        rows = prompts.compared(i)
        found = subject.oracle(plans.members[i], own, rows).double()
        if subject.vocab:
            targets = torch.tensor([own[row + 1] for row in rows], device=found.device)[:, None]
            found = torch.cat(
                [
                    torch.log_softmax(found / t, dim=-1).gather(1, targets)
                    for t in setting.contract.numerics.temperatures
                ],
                dim=1,
            )
        parts.append(found)
    return torch.cat(parts)

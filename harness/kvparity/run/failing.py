"""Whether a small case fails, and how: run in this process, both sides, on tokens of its own."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from kvparity.births.digests import digest_pass
from kvparity.births.pair_causes import wrong_side
from kvparity.core.bits import differing
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.plan.cases import Case, make
from kvparity.record.execute import Record
from kvparity.record.path_run import Setting
from kvparity.relations.asked import RelationAnswer
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import Runner, require_paths, run_case
from kvparity.run.worker import Job, forget, subject_of
from kvparity.smallest.fewer_steps import written
from kvparity.smallest.one_case import OneCase
from kvparity.smallest.search import TriedCase
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.steps import WrittenSteps

_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


class FailingCases:
    """Runs small cases one after the other; a subject that two of them share is loaded once."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self._loaded: object = None

    def look(self, small: OneCase) -> TriedCase:
        """What becomes of a case; ``same`` where it differs, whatever the class."""
        work = make(small.contract)
        if not work.units:
            return TriedCase("void", words=work.omitted[0].reason if work.omitted else "no case")
        unit = work.units[0]
        case = unit.cases[0]
        try:
            runner = self._runner(small, case)
            require_paths(runner.setting, unit, runner.plans)
            runner.rollout(unit.rollout)
            runner.repeated = {case.path: True}  # whether bits repeat is not asked of each
            answer = run_case(runner, case)
            return self._told(runner, case, answer)
        except (UnsupportedError, SubjectError) as error:
            self._loaded = None
            return TriedCase("error", words=str(error))
        except Exception as error:  # a shape that nobody thought of: it is no smaller case
            self._loaded = None
            return TriedCase("error", words=f"{type(error).__name__}: {error}")

    def steps(self, small: OneCase) -> WrittenSteps | None:
        """The steps of a case's path, written out, where they can be."""
        unit = make(small.contract).units[0]
        return written(unit.plans.of(small.path))

    def _runner(self, small: OneCase, case: Case) -> Runner:
        contract = small.contract
        asked = contract.subject, contract.numerics, contract.seed
        if asked != self._loaded:
            forget()
        job = Job(contract, Path(), self.device, self.folder)
        setting = Setting(contract, subject_of(job, case.numerics))
        self._loaded = asked
        return Runner(setting, setting.plans(case.workload), None)

    def _told(self, runner: Runner, case: Case, answer: RelationAnswer) -> TriedCase:
        found = answer.found
        if found.outcome != "differs":
            return TriedCase(found.outcome, words=found.reason)
        sequence = position = 0
        first = found.first_divergence
        if first is not None and first.sequence in runner.prompts.ids:
            sequence = runner.prompts.ids.index(first.sequence)
            # Of a logprob the token is named, which the row before it drew.
            position = first.position - (1 if case.column is not None else 0)
        failure = f"{case.relation}: {self._class(runner, case, answer)}"
        return TriedCase("same", failure, found.reason, sequence, position)

    def _class(self, runner: Runner, case: Case, answer: RelationAnswer) -> str:
        found = answer.found
        if case.relation != "invariance" or case.reference is None or found.reason != "bits differ":
            part = found.first_divergence.part if found.first_divergence else None
            return " ".join(filter(None, [_NUMBER.sub("#", found.reason), part]))
        subject = runner.setting.subject
        if not isinstance(subject, AttentionSubject):
            operation = _first_operation(runner, case)
            return operation if operation is not None else _column(found)
        reference, candidate = answer.reference, answer.candidate
        if not isinstance(reference, Record) or not isinstance(candidate, Record):
            return _column(found)
        values = reference.values.cpu(), candidate.values.cpu()
        return f"{_column(found)}, {kind_of(subject, *values, runner.exact().cpu())}"


def kind_of(pair: AttentionSubject, a: Tensor, b: Tensor, exact: Tensor) -> str:
    """Which side's rows are farther from float64 than rounding takes them, if one's are; as
    ``locate`` tells it. All ``[rows, width]``."""
    rows = differing(a, b).any(-1)
    wrong = wrong_side(pair, a[rows], b[rows], exact[rows, : a.shape[1]])
    # Whatever the paths are: another may fail alike.
    return "order" if wrong is None else f"values of the {('reference', 'path')[wrong]}"


def _first_operation(runner: Runner, case: Case) -> str | None:
    """The operation in which the sides first diverge, whatever its layer; None: none is known."""
    assert case.reference is not None  # of a case of invariance
    sides = [digest_pass(runner.side(path))[1] for path in (case.reference, case.path)]
    unlike = list(sides[0].unlike(sides[1]))
    return _NUMBER.sub("#", min(unlike, key=lambda key: key[1])[0]) if unlike else None


def _column(found: Comparison) -> str:
    first = found.first_divergence
    name = (first.name if first is not None else None) or ""
    if not name:
        return "a row of logits, and no logprob" if not found.differing_tokens else "logprobs"
    return "lse" if name.startswith("lse") else "out"

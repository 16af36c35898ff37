"""How accuracy is asked for, controlled and told."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kvparity.controls.reach import reaches
from kvparity.controls.semantics import ROWS
from kvparity.core.lse import lse_rounded
from kvparity.core.words import of_allowed, rounded
from kvparity.plan.results import CaseLine
from kvparity.record.path_run import PathRun
from kvparity.relations.accuracy.line import AccuracyCase
from kvparity.relations.accuracy.measure import accuracy, against
from kvparity.relations.accuracy.text import nearest_lines, spot_lines
from kvparity.relations.asked import Asked, ControlTrial, Planted, RelationAnswer, Reruns
from kvparity.relations.base import KeptFile, PathRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.explain import named
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.paths import PREFILL
from kvparity_contracts.subjects import AnySubject, Attention


class AccuracyRelation(PathRelation):
    """What a path computes is near float64."""

    check = Accuracy
    line = AccuracyCase
    holds = "within limits"
    file = KeptFile("accuracy", ("value", "exact", "column"), when="holds", by_token=True)
    limited = True
    resigned = (check.TAG, "reason")

    def compare(self, asked: Asked) -> RelationAnswer:
        """Measure the path's record; what is kept is how far each token is off."""
        candidate, wanted = asked.candidate.record(), asked.exact()
        if asked.column is None:
            contract = asked.candidate.side.setting.contract
            wanted = comparable(contract.subject, candidate.values, wanted)
        found = accuracy(candidate, wanted, asked.limits, column=asked.column)
        if found.details is None:  # nothing could be measured
            return RelationAnswer(found, candidate)
        return RelationAnswer(found, candidate, against(candidate, wanted, column=asked.column))

    def explained(self, asked: Asked, found: Comparison, reruns: Reruns) -> Comparison:
        """With names of columns."""
        return named(asked.candidate.side.subject, found)

    def control(self, trial: ControlTrial) -> Planted:
        """Of a fault that both kernels of a pair share, what every accuracy check sees of it."""
        pair = trial.setting.subject
        if trial.control.name in ROWS and isinstance(pair, AttentionSubject):
            return _by_reach(trial, pair)
        return super().control(trial)

    def rows(self, cases: Sequence[CaseLine]) -> list[str]:
        """The cases that are nearest to their limits."""
        return nearest_lines(cases)

    def spots(self, case: CaseLine) -> list[str]:
        """The first and the worst token."""
        return spot_lines(case)


def comparable(subject: AnySubject, found: Tensor, wanted: Tensor) -> Tensor:
    """The oracle's values of what the path gave: of a pair that returns no LSE, O alone."""
    wanted = wanted[:, : found.shape[1]]
    if not isinstance(subject, Attention):
        return wanted
    return lse_rounded(found, wanted, subject.heads.out)


def _by_reach(trial: ControlTrial, pair: AttentionSubject) -> Planted:
    plans, tokens = trial.part()
    side = PathRun(trial.setting, pair, plans, PREFILL, tokens)
    lse = side.run().values.shape[1] > pair.heads.out
    found = tuple(reaches(trial.setting, pair, ROWS[trial.control.name], lse=lse))
    first = next((each for each in found if not each.seen), found[0])
    words = of_allowed({"max_abs": first.measured}, {"max_abs": first.limit})
    rounding = f"{first.dtype} alone rounds by {rounded(first.rounding)}"
    seen = f"differs: over the limit: {words}" if first.seen else f"not seen: {words}; {rounding}"
    return Planted(first.seen, seen, {"max_abs": first.measured}, found)

"""Relation *parity*: two sides that score the same tokens, by bits or within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from kvparity.controls.sides import OF_NUMBERS, disturb, less
from kvparity.gaps.report import judge, limited, worst_tokens
from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Outcome
from kvparity.relations.asked import Kernels, Planted
from kvparity.relations.base import KernelRelation
from kvparity.relations.bits_and_limits import Comparison
from kvparity.relations.parity.line import ParityCase, ParityDetails, SideToken
from kvparity.relations.parity.opened import ScoringDefect
from kvparity.relations.parity.scored import ScoredSides, scored, sides_of
from kvparity.rollouts.metrics import metrics
from kvparity_contracts.checks import ParityCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS


class ParityRelation(KernelRelation):
    """A trainer gives the rollout's tokens the logprobs that the rollout recorded."""

    check = ParityCheck
    line = ParityCase
    holds = "both sides agree"
    limited = True
    sides = ("rollout", "trainer")

    def place(self, case: CaseLine) -> str:
        """The sides."""
        found = case.details
        if not isinstance(found, ParityDetails):
            return "both sides"
        return f"{found.trainer.name} ({found.trainer.about}) against {found.rollout.name}"

    def words(self, case: KernelCase) -> str:
        """Both are scored."""
        return "parity of both sides"

    def look(self, kernels: Kernels, case: KernelCase) -> Comparison:
        """Score and compare."""
        check = kernels.contract.check(case.check)
        assert isinstance(check, ParityCheck)
        return compared(scored(kernels), check)

    def control(self, kernels: Kernels, job: KernelControl) -> Planted:
        """Plant a defect in the numbers or the model; every parity check must see it."""
        found = planted(kernels, job.control)
        seen = [
            (check, compared(_dropped(found, check, job.control), check))
            for check in _checks(kernels.contract)
        ]
        expect = CONTROLS[job.control].expect
        # Of a check that differs without it, too, a void shows nothing: that verdict outranks it.
        silent = [(check, each) for check, each in seen if each.outcome == "holds"]
        shown = [(check, each) for check, each in seen if each.outcome == expect]
        missed = silent or ([] if shown else seen)
        check, told = (missed or shown)[0]
        where = f" ({check.name})" if missed else ""
        return Planted(not missed, f"{told.outcome}: {told.reason}{where}", _measured(told))

    def rows(self, cases: Sequence[CaseLine]) -> list[str]:
        """What was measured, and the worst token."""
        lines = []
        for case in cases:
            if isinstance(found := case.details, ParityDetails):
                words = _words(found) or "nothing was compared"
                lines += [f"    {case.id}: {words}", *(f"    {each}" for each in found.found)]
            lines += self.spots(case)
        return lines

    def spots(self, case: CaseLine) -> list[str]:
        """The worst token."""
        found = case.details
        if not isinstance(found, ParityDetails) or (worst := found.worst) is None:
            return []
        return [
            f"    worst token: {worst.sequence} position {worst.position}, token {worst.token}: "
            f"rollout {worst.rollout}, trainer {worst.trainer}, d {worst.d}"
        ]


def _words(found: ParityDetails) -> str:
    """Where limits are set, what they limit; else all that was measured."""
    return ", ".join(
        f"{name} {value:.3g}" + (f" of {found.limits[name]:g}" if name in found.limits else "")
        for name, value in found.measured.items()
        if isinstance(value, float) and (name in found.limits or not found.limits)
    )


def _checks(contract: Contract) -> list[ParityCheck]:
    return [each for each in contract.checks if isinstance(each, ParityCheck)]


def _measured(found: Comparison) -> dict[str, float | str]:
    return dict(found.details.measured) if isinstance(found.details, ParityDetails) else {}


def planted(kernels: Kernels, control: str) -> ScoredSides:
    """Both sides with a defect; what is dropped depends on the check.

    Raises:
        UnsupportedError: it cannot be planted in these sides.
    """
    if control in OF_NUMBERS:
        both = scored(kernels)
        tokens = OF_NUMBERS[control](both.found.tokens)
        return replace(both, found=replace(both.found, tokens=tokens))
    if control == "stale-weights":
        defect = ScoringDefect(weights=partial(disturb, seed=kernels.contract.seed))
    elif control == "other-dtype":
        own = sides_of(kernels).models[0].dtype
        defect = ScoringDefect(dtype="float32" if own != "float32" else "bfloat16")
    elif control == "doubled-first-token":
        defect = ScoringDefect(doubled=True)
    else:
        return scored(kernels)
    return scored(kernels, defect)


def _dropped(both: ScoredSides, check: ParityCheck, control: str) -> ScoredSides:
    if control != "dropped-sequences":
        return both
    found, matched = both.found, both.found.matched
    dropped = max(check.unmatched + 1 - len(matched.unmatched), 1)
    tokens = less(found.tokens, dropped)
    names = found.tokens.names[len(tokens.names) :]
    unmatched = [*matched.unmatched, *names]
    less_found = replace(found, tokens=tokens, matched=replace(matched, unmatched=unmatched))
    return replace(both, found=less_found)


def compared(both: ScoredSides, check: ParityCheck) -> Comparison:
    """What a check says of two sides."""
    found = both.found
    tokens, limits = found.tokens, check.limits or {}
    measured = metrics(tokens) if tokens.count else None
    outcome: Outcome
    outcome, reason = judge(
        tokens, measured, found.matched, found.anomalies, limits, unmatched=check.unmatched
    )
    if outcome == "holds" and both.unproved is not None:
        outcome, reason = "void", both.unproved
    values: dict[str, float | str] = (
        {} if measured is None else dict(limited(tokens, measured, limits))
    )
    (worst,) = worst_tokens(tokens, 1) or (None,)
    details = ParityDetails(
        limits=dict(limits),
        measured=values,
        ids=both.ids,
        rollout=both.rollout,
        trainer=both.trainer,
        sequences=found.matched.pairs,
        unmatched=len(found.matched.unmatched),
        allowed=check.unmatched,
        found=tuple(found.anomalies.sentences()),
        worst=None
        if worst is None
        else SideToken(
            sequence=worst.sequence,
            position=worst.position,
            token=worst.token_id,
            rollout=worst.rollout,
            trainer=worst.trainer,
            d=worst.d,
        ),
    )
    return Comparison(
        outcome,
        reason,
        tokens=tokens.count,
        differing_tokens=int((~tokens.equal).sum()),
        details=details,
    )

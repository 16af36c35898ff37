"""What a relation is: one object, which other rooms ask instead of comparing its name.

To add one, write a check model (``kvparity_contracts.check_base``) and a subclass of
:class:`PathRelation` or :class:`KernelRelation`, and register an object of it
(:mod:`kvparity.relations.registry`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kvparity.plan.kernel_cases import KernelCase, KernelControl
from kvparity.plan.results import CaseLine, Outcome
from kvparity.relations.asked import Asked, ControlTrial, Kernels, Planted, RelationAnswer, Reruns
from kvparity.relations.bits_and_limits import Comparison, measures
from kvparity_contracts.checks import Check, KernelCheck, PathCheck


@dataclass(frozen=True)
class KeptFile:
    """The file of what was compared. ``tensors``: at least these. ``when``: a case of this verdict
    has one; ``by_token``: its index has as many entries as tokens were compared.
    """

    folder: str = "failures"
    tensors: tuple[str, ...] = ()
    when: Outcome | None = None
    by_token: bool = False


class Relation(ABC):
    """What is asked of paths or kernels, and how what was found is told.

    ``check``: the model of its checks. ``line``: of its cases. ``holds``: what is so where a case
    holds. ``counted``: what its cases count. ``limited``: its checks
    have limits. ``varies``: details that another look need not find
    again. ``resigned``: fields that a run of schema 1 measured with the other sign.
    """

    check: ClassVar[type[Check]]
    line: ClassVar[type[CaseLine]] = CaseLine
    holds: ClassVar[str]
    counted: ClassVar[str] = "tokens"
    file: ClassVar[KeptFile] = KeptFile()
    limited: ClassVar[bool] = False
    varies: ClassVar[tuple[str, ...]] = ()
    resigned: ClassVar[tuple[str, ...]] = ()
    sees_order: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As contracts write it."""
        return self.check.TAG

    def place(self, case: CaseLine) -> str:
        """Where a case looked, in words."""
        return f"{case.path} over {case.workload}"

    def rows(self, cases: Sequence[CaseLine]) -> list[str]:
        """Lines under the table of a check, in the report that a person reads."""
        return []

    def spots(self, case: CaseLine) -> list[str]:
        """Lines about single tokens of a case that broke."""
        return []

    def seen(self, found: Comparison) -> str:
        """What a check saw of a planted defect."""
        if found.outcome == "differs" and found.differing_tokens:
            return f"{found.reason}: {found.differing_tokens} of {found.tokens} {self.counted}"
        return f"{found.outcome}: {found.reason}"


class PathRelation(Relation):
    """A relation of what paths compute.

    ``probes``: its paths run with a probe, so that their rows are not those of the path.
    ``first``: its cases come first in a unit, as what they compute serves the others, too.
    ``apart``: its cases and controls are run in several processes, once all units have run.
    """

    check: ClassVar[type[PathCheck]]
    probes: ClassVar[bool] = False
    first: ClassVar[bool] = False
    apart: ClassVar[bool] = False

    @abstractmethod
    def compare(self, asked: Asked) -> RelationAnswer:
        """The comparison itself: of a case, and of a control. Raises ``OracleError``."""

    def explained(self, asked: Asked, found: Comparison, reruns: Reruns) -> Comparison:
        """The same, with what else can be found out of a case."""
        return found

    def control(self, trial: ControlTrial) -> Planted:
        """Run a control. It is caught where the check says what the control expects.

        Where the check does not compare its paths, a clean run must not show the same.
        """
        expect = trial.control.expect
        if not trial.job.covered:
            clean = trial.clean()
            # What is void without the defect shows nothing by being void with it.
            if clean.outcome in ("differs", expect) or not clean.tokens:
                return Planted(False, f"it fails without the defect, too: {self.seen(clean)}")
        found = trial.planted()
        measured = measures(found) if self.limited else {}
        return Planted(found.outcome == expect, self.seen(found), measured)


class KernelRelation(Relation):
    """A relation of decode's kernels and prefill's, or of two recorded sides: no path runs, and no
    workload. ``sides``: what is compared with what, as a case has it.
    """

    sides: ClassVar[tuple[str, str]] = ("prefill", "decode")
    check: ClassVar[type[KernelCheck]]

    @abstractmethod
    def words(self, case: KernelCase) -> str:
        """What is done while a case runs."""

    @abstractmethod
    def look(self, kernels: Kernels, case: KernelCase) -> Comparison:
        """What a case finds."""

    @abstractmethod
    def control(self, kernels: Kernels, job: KernelControl) -> Planted:
        """Run a control in one of the check's own cases."""

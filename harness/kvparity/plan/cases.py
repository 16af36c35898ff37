"""From a contract to a list of work: units (one workload in one numerics), cases and controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kvparity.plan.kernel_cases import (
    KernelCase,
    KernelControl,
    KernelNumerics,
    Unplanted,
    all_numerics,
    kernel_cases,
    kernel_control,
)
from kvparity.plan.workload import fill
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity_contracts.checks import CHECKS, PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import Control
from kvparity_contracts.draws import means
from kvparity_contracts.idling import why_idle
from kvparity_contracts.paths import PREFILL, PathName
from kvparity_contracts.placing import Placement, split_and_tile
from kvparity_contracts.planning import LeftOut, fates


@dataclass(frozen=True)
class Case:
    """One comparison. ``column`` is the temperature's column, None where no logprob is compared."""

    id: str
    check: str
    relation: str
    workload: str
    path: PathName
    reference: PathName | None
    numerics: KernelNumerics
    temperature: float | None
    column: int | None


@dataclass(frozen=True)
class Unit:
    """All cases of one workload in one numerics: they share a rollout, a reference and plans."""

    id: str
    workload: str
    numerics: KernelNumerics
    cases: tuple[Case, ...]
    plans: WorkloadPlans = field(repr=False)
    draws: PathName | None = None
    """The path that draws the tokens, where each path draws its own: of a server."""

    @property
    def rollout(self) -> PathName:
        """The path that draws the tokens: the subject's own loop if the contract looks at it."""
        if self.draws is not None:
            return self.draws
        generate = PathName("generate")
        wanted = any(generate in (case.path, case.reference) for case in self.cases)
        return generate if wanted else PathName("decode")


@dataclass(frozen=True)
class Omitted:
    """A path that would show nothing here: it is the reference itself, or decodes no token."""

    check: str
    workload: str
    path: str
    reason: str


@dataclass(frozen=True)
class ControlRun:
    """One control on the smallest part of a workload that can show it to one relation.

    ``covered``: the check itself compares these paths. Where it does not, the control is also run
    without its defect, so that nothing else can pass for it. ``alone``: the reference does without
    the defect, though it is one of both sides.
    """

    control: str
    relation: str
    check: str
    reference: PathName
    numerics: KernelNumerics
    workload: str
    sequences: tuple[int, ...]
    generate: int
    temperature: float | None
    column: int | None
    covered: bool = True
    alone: bool = False


@dataclass(frozen=True)
class Work:
    """Everything that a verification will do."""

    units: tuple[Unit, ...]
    kernel_cases: tuple[KernelCase, ...]
    controls: tuple[ControlRun, ...]
    kernel_controls: tuple[KernelControl, ...]
    omitted: tuple[Omitted, ...]
    unplanted: tuple[Unplanted, ...]

    @property
    def every_control(self) -> tuple[ControlRun | KernelControl, ...]:
        """All controls, in the order of the report."""
        return (*self.controls, *self.kernel_controls)


def make(contract: Contract) -> Work:
    """Everything that verifying ``contract`` takes, in a fixed order."""
    seed, given = contract.seed, means(contract)
    plans = {
        w.name: WorkloadPlans(fill(w, seed=seed, vocab=0, given=given), seed, given)
        for w in contract.workloads
    }
    pairs = list(_pairs(contract, plans))
    omitted = tuple(pair for pair in pairs if isinstance(pair, Omitted))
    cases = _cases(contract, [pair for pair in pairs if not isinstance(pair, Omitted)])
    units = _units(contract, cases, plans)
    kernels = kernel_cases(contract, len(cases))
    ran = frozenset(unit.workload for unit in units)
    planted = list(_controls(contract, ran, kernels))
    return Work(
        units=units,
        kernel_cases=kernels,
        controls=tuple(each for each in planted if isinstance(each, ControlRun)),
        kernel_controls=tuple(each for each in planted if isinstance(each, KernelControl)),
        omitted=omitted,
        unplanted=tuple(each for each in planted if isinstance(each, Unplanted)),
    )


@dataclass(frozen=True)
class _Pair:
    check: PathCheck
    workload: str
    path: PathName
    reference: PathName | None


def _pairs(contract: Contract, plans: dict[str, WorkloadPlans]) -> Iterator[_Pair | Omitted]:
    for check in contract.path_checks:
        reference = check.against
        for workload in contract.workloads:
            if check.workloads is not None and workload.name not in check.workloads:
                continue
            own = plans[workload.name]
            for path in contract.paths_of(check, workload):
                reason = why_idle(path, workload)
                if reason is not None:
                    yield Omitted(check.name, workload.name, str(path), reason)
                elif reference is not None and own.of(path) == own.of(reference):
                    reason = f"{path} runs the same steps as {reference} here"
                    yield Omitted(check.name, workload.name, str(path), reason)
                else:
                    yield _Pair(check, workload.name, path, reference)


def _columns(contract: Contract, relation: str) -> list[tuple[float | None, int | None]]:
    model = CHECKS[relation]
    once = issubclass(model, PathCheck) and (model.INSIDE or model.ONCE)
    if contract.subject.kind == "attention" or once:
        return [(None, None)]
    return [(t, i) for i, t in enumerate(contract.numerics.temperatures)]


def _cases(contract: Contract, pairs: list[_Pair]) -> list[Case]:
    cases: list[Case] = []
    for numerics in all_numerics(contract):
        for pair in pairs:
            for temperature, column in _columns(contract, pair.check.relation):
                cases.append(
                    Case(
                        id=f"c{len(cases):03d}",
                        check=pair.check.name,
                        relation=pair.check.relation,
                        workload=pair.workload,
                        path=pair.path,
                        reference=pair.reference,
                        numerics=numerics,
                        temperature=temperature,
                        column=column,
                    )
                )
    return cases


def _units(
    contract: Contract, cases: list[Case], plans: dict[str, WorkloadPlans]
) -> tuple[Unit, ...]:
    units: list[Unit] = []
    grouped: dict[tuple[KernelNumerics, str], list[Case]] = {}
    for case in cases:
        grouped.setdefault((case.numerics, case.workload), []).append(case)
    for numerics in all_numerics(contract):
        for workload in contract.workloads:
            own = tuple(grouped.get((numerics, workload.name), ()))
            if contract.subject.kind == "server":
                units += _by_drawing(workload.name, numerics, own, plans[workload.name])
            elif own:
                units.append(
                    Unit(
                        f"{workload.name}, {numerics}", workload.name, numerics, own,
                        plans[workload.name],
                    )
                )  # fmt: skip
    return tuple(units)


def _by_drawing(
    workload: str, numerics: KernelNumerics, cases: Sequence[Case], plans: WorkloadPlans
) -> Iterator[Unit]:
    """A unit for each path that draws: tokens cannot be forced on a server that decodes, so what
    is scored again are those that this path drew."""
    drawing: dict[PathName, list[Case]] = {}
    for case in cases:
        both = [path for path in (case.reference, case.path) if path is not None]
        draws = next((path for path in both if path != PREFILL), PREFILL)
        drawing.setdefault(draws, []).append(case)
    for path, own in drawing.items():
        yield Unit(f"{workload} by {path}, {numerics}", workload, numerics, tuple(own), plans, path)


def _controls(
    contract: Contract, ran: frozenset[str], kernels: Sequence[KernelCase]
) -> Iterator[ControlRun | KernelControl | Unplanted]:
    asked, tile = contract.controls != "all", split_and_tile(contract)[1]
    for fate in fates(contract, ran):
        if isinstance(fate, LeftOut):
            yield Unplanted(fate.control.name, fate.relation, fate.reason, asked)
        elif fate.place is None:
            yield kernel_control(kernels, fate.control.name, fate.relation, tile)
        else:
            yield _control(contract, fate.control, fate.relation, fate.place)


def _control(contract: Contract, control: Control, relation: str, place: Placement) -> ControlRun:
    columns = _columns(contract, relation)
    if control.tempered:
        columns = [(t, i) for t, i in columns if t != 1.0]
    return ControlRun(
        control=control.name,
        relation=relation,
        check=place.check,
        reference=place.reference,
        numerics=all_numerics(contract)[0],
        workload=place.workload,
        sequences=place.sequences,
        generate=place.generate,
        temperature=columns[0][0],
        column=columns[0][1],
        covered=place.covered,
        alone=place.alone,
    )

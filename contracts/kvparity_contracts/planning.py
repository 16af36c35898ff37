"""Which controls a contract means, where each is planted, or why it is not: read off the contract.

The verification plans with the same functions, so that the linter says what it will do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kvparity_contracts.abilities import cannot
from kvparity_contracts.checks import CHECKS, Check, KernelCheck, PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.features import has
from kvparity_contracts.idling import runs
from kvparity_contracts.needs import needs
from kvparity_contracts.placing import Placement, part_of, place, split_and_tile
from kvparity_contracts.subjects import Attention, order_of
from kvparity_contracts.workloads import Workload


@dataclass(frozen=True)
class PlantedControl:
    """A control and a relation that must catch it; ``place`` is None where kernels are changed."""

    control: Control
    relation: str
    place: Placement | None


@dataclass(frozen=True)
class LeftOut:
    """A control that cannot be planted for a relation, and why."""

    control: Control
    relation: str
    reason: str


def relations_of(control: Control) -> tuple[str, ...]:
    """The relations that must catch a control: those of its row, and those that name it."""
    named = (each for each, model in CHECKS.items() if control.name in model.CATCHES)
    return tuple(dict.fromkeys((*control.relations, *named)))


def planned(contract: Contract) -> tuple[Control, ...]:
    """The controls to run: those that the contract names, or with ``all`` those that can show."""
    if contract.controls == "all":
        return tuple(each for each in meant(contract) if shows(each, contract))
    return tuple(CONTROLS[name] for name in contract.controls)


def in_kernels(control: Control) -> bool:
    """Whether checks of kernels alone look for it, so that it is planted in what these look at."""
    return all(issubclass(CHECKS[each], KernelCheck) for each in control.relations)


def fates(
    contract: Contract, ran: Collection[str] | None = None
) -> Iterator[PlantedControl | LeftOut]:
    """What becomes of every control that the contract may mean, for each relation that it has.

    ``ran`` names the workloads that are run; left out, it is read off the contract.
    """
    running = workloads_run(contract) if ran is None else ran
    everything = contract.controls == "all"
    for name in CONTROLS if everything else contract.controls:
        control = CONTROLS[name]
        hidden = everything and not shows(control, contract)
        present = [each for each in relations_of(control) if contract.checks_of(each)]
        for relation in present or control.relations[:1]:
            found = _fate(control, relation, contract, running)
            if hidden and not isinstance(found, str):
                found = f"it cannot show here: it takes {needs(control)}"
            if isinstance(found, str):
                yield LeftOut(control, relation, found)
            else:
                yield PlantedControl(control, relation, found)


def _fate(
    control: Control, relation: str, contract: Contract, ran: Collection[str]
) -> Placement | str | None:
    """Its place, None where it is planted into kernels, or why it cannot be planted."""
    kind = contract.subject.kind
    if kind not in control.subjects:
        return f"cannot be planted in a subject of kind {kind}"
    if reason := _unable(control, contract):
        return f"it is planted on {control.path}, and {reason}"
    if issubclass(CHECKS[relation], KernelCheck):
        return _in_kernels(control, relation, contract)
    if "order" in control.features and order_of(contract.subject) is None:
        return "it plants another order, and attention here has none of this project's"
    lacking = [each for each in control.features if not has(contract, each)]
    if "taken-order" in lacking:
        return "it picks the order of each call, and the kernels of this pair take none"
    if set(lacking) - {"float32"}:  # rounding to less may hide the defect, and need not
        return f"it cannot show here: it takes {needs(control)}"
    if control.tempered and all(each == 1.0 for each in contract.numerics.temperatures):
        return "every temperature of the contract is 1"
    return place(control, relation, contract, ran)


def _in_kernels(control: Control, relation: str, contract: Contract) -> str | None:
    checks = [each for each in contract.checks_of(relation) if isinstance(each, KernelCheck)]
    if not checks:
        return f"the contract has no {' or '.join(control.relations)} check"
    if "order" not in control.relations and not possible(control, contract):
        return f"it takes {needs(control)}"
    hidden = [each.hidden(split_and_tile(contract)[1]) for each in checks]
    return None if None in hidden else hidden[0]


def workloads_run(contract: Contract) -> frozenset[str]:
    """Names of the workloads in which some path of some check shows anything."""
    return frozenset(
        workload.name
        for check in contract.path_checks
        for workload in contract.workloads_of(check)
        if any(runs(path, check, workload) for path in contract.paths_of(check, workload))
    )


def meant(contract: Contract) -> tuple[Control, ...]:
    """Controls of defects that the contract's claims rule out, whether or not they can show."""
    kind = contract.subject.kind
    return tuple(
        each
        for each in CONTROLS.values()
        if kind in each.subjects
        and possible(each, contract)
        and any(meant_for(each, c, contract) for c in contract.checks)
    )


def possible(control: Control, contract: Contract) -> bool:
    """Whether the contract has what the defect lives in: a window, a ring, a store of codes."""
    features = all(has(contract, feature) for feature in control.features)
    return features and _unable(control, contract) is None


def _unable(control: Control, contract: Contract) -> str | None:
    """Why a pair cannot run the path on which a defect is planted, or None."""
    subject = contract.subject
    return cannot(subject, control.path) if isinstance(subject, Attention) else None


def shows(control: Control, contract: Contract) -> bool:
    """Whether a fitting check has the keys for the defect, or a workload long and varied enough."""
    if control.tempered and all(each == 1.0 for each in contract.numerics.temperatures):
        return False
    if not possible(control, contract):
        return False
    for check in contract.checks:
        if meant_for(control, check, contract):
            tile = split_and_tile(contract)[1]
            if isinstance(check, KernelCheck) and check.hidden(tile) is None:
                return True
    return any(part_of(control, contract, each) for each in exposed(control, contract))


def exposed(control: Control, contract: Contract) -> Iterator[Workload]:
    """Workloads that run on a path on which the defect would live."""
    for check in contract.path_checks:
        for workload in contract.workloads_of(check):
            if _covers(control, check, contract, workload):
                yield workload


def meant_for(control: Control, check: Check, contract: Contract) -> bool:
    """Whether a check is one that the control is meant for."""
    if isinstance(check, PathCheck):
        return any(_covers(control, check, contract, w) for w in contract.workloads_of(check))
    return check.relation in relations_of(control)


def _covers(control: Control, check: PathCheck, contract: Contract, workload: Workload) -> bool:
    if check.relation not in relations_of(control):
        return False
    paths = contract.paths_of(check, workload)
    return bool(paths) and (not control.paths or any(path.kind in control.paths for path in paths))

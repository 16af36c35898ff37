"""Which controls a contract means, and which of them could show: read off the contract alone."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts.checks import AnyCheck, AuditCheck, OrderCheck, PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.features import has
from kvparity_contracts.subjects import known, order_of
from kvparity_contracts.workloads import Workload


def planned(contract: Contract) -> tuple[Control, ...]:
    """The controls to run: those that the contract names, or with ``all`` those that can show."""
    if contract.controls == "all":
        return tuple(each for each in meant(contract) if shows(each, contract))
    return tuple(CONTROLS[name] for name in contract.controls)


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
    return all(has(contract, feature) for feature in control.features)


def shows(control: Control, contract: Contract) -> bool:
    """Whether a fitting check has the keys for the defect, or a workload long and varied enough."""
    if control.tempered and all(each == 1.0 for each in contract.numerics.temperatures):
        return False
    if not possible(control, contract):
        return False
    fewest = _fewest(control, contract)
    for check in contract.checks:
        if meant_for(control, check, contract):
            if isinstance(check, AuditCheck):
                return True
            if isinstance(check, OrderCheck) and max(check.keys) > fewest:
                return True
    return any(
        max(workload.totals()) > fewest
        and len(set(workload.lengths())) >= control.sequences
        and workload.generate >= control.generate
        for workload in exposed(control, contract)
    )


def exposed(control: Control, contract: Contract) -> Iterator[Workload]:
    """Workloads that run on a path on which the defect would live."""
    for check in contract.path_checks:
        for workload in contract.workloads_of(check):
            if _covers(control, check, contract, workload):
                yield workload


def meant_for(control: Control, check: AnyCheck, contract: Contract) -> bool:
    """Whether a check is one that the control is meant for."""
    if isinstance(check, PathCheck):
        return any(_covers(control, check, contract, w) for w in contract.workloads_of(check))
    return check.relation in control.relations


def _covers(control: Control, check: PathCheck, contract: Contract, workload: Workload) -> bool:
    if check.relation not in control.relations:
        return False
    paths = contract.paths_of(check, workload)
    return bool(paths) and (not control.paths or any(path.kind in control.paths for path in paths))


def _fewest(control: Control, contract: Contract) -> int:
    if control.keys == "window":
        return known(contract.subject).sliding_window or 0
    order = order_of(contract.subject)
    if order is None or control.keys == "any":
        return 0
    return order.tile if control.keys == "tile" else order.split

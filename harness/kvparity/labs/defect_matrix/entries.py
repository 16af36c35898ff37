"""The entries of the matrix: one control, in one place, under one relation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES, ORDER, FixtureContract, applies
from kvparity_contracts.checks import CHECKS, Invariance, OrderCheck, PathCheck, ReproductionCheck
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.controls.dispatch import DISPATCH
from kvparity_contracts.controls.linears import LINEARS
from kvparity_contracts.controls.sampling import SAMPLING
from kvparity_contracts.features import shares_prompt
from kvparity_contracts.placing import WorkloadPart
from kvparity_contracts.placing import part_of as placed
from kvparity_contracts.planning import in_kernels


@dataclass(frozen=True)
class Entry:
    """One control in one workload of a fixture (order and audit checks have none)."""

    control: str
    fixture: str
    workload: str
    relation: str


def entries(only: Collection[str] = ()) -> list[Entry]:
    """All entries, or those of some controls.

    A control is looked at under every relation in the first workload that can show it, and under
    those that must catch it, and bits, in all. What shows between processes has no entry: here one
    process runs both sides.
    """
    found: list[Entry] = []
    for name in CONTROLS:
        if CONTROLS[name].relations == (ReproductionCheck.TAG,):
            continue
        if CONTROLS[name].side not in ("sides", "ranks") and (not only or name in only):
            found += _of_kernels(name) if in_kernels(CONTROLS[name]) else _of_paths(name)
    return found


def _of_kernels(name: str) -> Iterator[Entry]:
    for relation in CONTROLS[name].relations:
        yield Entry(name, "plain", "", relation)


def _of_paths(name: str) -> Iterator[Entry]:
    for fixture in FIXTURES.values():
        if not applies(CONTROLS[name], fixture):
            continue
        present = {check.relation for check in fixture.contract.checks}
        first = True
        for workload in fixture.contract.workloads:
            if part_of(CONTROLS[name], fixture, workload.name) is None:
                continue
            for relation in CHECKS:
                wanted = first or relation in (Invariance.TAG, *CONTROLS[name].relations)
                if wanted and relation in present and seen_by(CONTROLS[name], relation):
                    yield Entry(name, fixture.name, workload.name, relation)
            first = False
        if fixture.name == "plain" and reorders(CONTROLS[name]):
            yield Entry(name, fixture.name, "", OrderCheck.TAG)


def part_of(control: Control, fixture: FixtureContract, workload: str) -> WorkloadPart | None:
    """The smallest part of a workload that shows a control, or None."""
    contract = fixture.contract
    model = next(each for each in contract.workloads if each.name == workload)
    if control.path.kind == "padded-left" and "left" not in model.pad:
        return None
    if ("shared-prompt" in control.features) != shares_prompt(model, ORDER["tile"]):
        return None  # the prompts with one beginning are there for that alone
    if control.path.kind == "prefix" and max(model.lengths()) <= (control.path.argument or 0):
        return None
    return placed(control, contract, model)


_CLASSIC = {"split-by-batch", "tile-by-query-length", "split-from-chunk"}
_ORDERS = {each.name for each in DISPATCH} | _CLASSIC
_ELSEWHERE = {"window-drops-split", "tile-by-store"}  # orders that another fixture shows
_SCORES = {each.name for each in SAMPLING} | {
    "temperature-ignored", "log-of-softmax",
}  # fmt: skip
_ROWS = {each.name for each in LINEARS}


def reorders(control: Control) -> bool:
    """Whether it changes the order of attention, which an order check can probe."""
    return control.name in _ORDERS


def blind(control: Control, check: type[PathCheck]) -> bool:
    """Whether a check cannot see it by what it looks at.

    Another order leaves it open which keys count (liveness); other scores change nothing that a
    layer computes.
    """
    reordering = control.name in _ORDERS | _ELSEWHERE | _ROWS
    return check.INSIDE if control.name in _SCORES else reordering and not check.SEES_ORDER


def seen_by(control: Control, relation: str) -> Control | None:
    """The control as a check of one relation runs it, or None where that sees nothing of it."""
    check = CHECKS[relation]
    if not issubclass(check, PathCheck):
        return None
    if blind(control, check) and relation not in control.relations:
        return None
    return check.shown(control)

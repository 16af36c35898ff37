"""The entries of the matrix: one control, in one place, under one relation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES, ORDER, FixtureContract, applies
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.controls.dispatch import DISPATCH
from kvparity_contracts.controls.linears import LINEARS
from kvparity_contracts.controls.sampling import SAMPLING
from kvparity_contracts.features import shares_prompt
from kvparity_contracts.paths import DECODE, PREFILL
from kvparity_contracts.placing import WorkloadPart
from kvparity_contracts.placing import part_of as placed
from kvparity_contracts.planning import in_kernels

RELATIONS: tuple[str, ...] = (
    "invariance", "accuracy", "cache", "liveness", "trace", "order", "audit",
)  # fmt: skip


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
    those that must catch it, and bits, in all.
    """
    found: list[Entry] = []
    for name in CONTROLS:
        if not only or name in only:
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
            for relation in RELATIONS:
                wanted = first or relation in ("invariance", *CONTROLS[name].relations)
                if wanted and relation in present and seen_by(CONTROLS[name], relation):
                    yield Entry(name, fixture.name, workload.name, relation)
            first = False
        if fixture.name == "plain" and reorders(CONTROLS[name]):
            yield Entry(name, fixture.name, "", "order")


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


def blind(control: Control) -> tuple[str, ...]:
    """Relations that cannot see it by what they look at.

    Another order leaves it open which keys count (liveness); other scores change nothing that a
    layer computes.
    """
    if control.name in _SCORES:
        return ("cache", "liveness", "trace")
    return ("liveness",) if control.name in _ORDERS | _ELSEWHERE | _ROWS else ()


def seen_by(control: Control, relation: str) -> Control | None:
    """The control as a check of one relation runs it; None where such a check sees nothing of it.

    Accuracy, liveness and trace look at one side: at the planted one. Two sides that are planted
    alike need two paths to differ.
    """
    if relation in blind(control) and relation not in control.relations:
        return None
    if relation == "invariance":
        alike = control.side == "both" and control.path == PREFILL
        return replace(control, path=DECODE) if alike else control
    if control.side == "handover":
        return None  # only the tokens that are handed over, or their number, are wrong
    if relation == "cache":
        path = DECODE if control.path == PREFILL else control.path
        return replace(control, path=path, scores_prompt=False)
    planted = replace(control, side="both") if control.side == "rescore" else control
    if relation == "accuracy":
        return planted
    if relation in ("liveness", "trace"):
        cheaper = ("prefill", "permuted", "batched") if relation == "liveness" else ("prefill",)
        path = DECODE if control.path.kind in cheaper else control.path
        return replace(planted, path=path, scores_prompt=False)
    return None

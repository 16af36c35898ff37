"""From a contract to a list of work: units (one workload in one numerics), cases and controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvparity.controls.base import Control
from kvparity.controls.placing import place
from kvparity.controls.table import CONTROLS
from kvparity.kernel_plan import (
    KernelCase,
    KernelControl,
    Numerics,
    Unplanted,
    kernel_cases,
    kernel_controls,
)
from kvparity.paths import build
from kvparity.workload import Prompts, fill
from kvparity_contracts.checks import PathCheck, Relation, reference_of
from kvparity_contracts.consistency import idle
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS as DESCRIBED
from kvparity_contracts.controls import Control as Described
from kvparity_contracts.order import Order
from kvparity_contracts.paths import PathName
from kvparity_contracts.planning import planned
from kvparity_contracts.subjects import order_of as declared
from kvparity_contracts.workloads import Workload


@dataclass(frozen=True)
class Case:
    """One comparison. ``column`` is the temperature's column, None where no logprob is compared."""

    id: str
    check: str
    relation: str
    workload: str
    path: PathName
    reference: PathName | None
    numerics: Numerics
    temperature: float | None
    column: int | None


@dataclass(frozen=True)
class Unit:
    """All cases of one workload in one numerics: they share a rollout and a reference."""

    id: str
    workload: str
    numerics: Numerics
    cases: tuple[Case, ...]

    @property
    def rollout(self) -> PathName:
        """The path that draws the tokens: the subject's own loop if the contract looks at it."""
        generate = PathName("generate")
        wanted = any(generate in (case.path, case.reference) for case in self.cases)
        return generate if wanted else PathName("decode")


_IDLE = ("decode", "generate", "mixed", "exported", "compiled")
"""Paths that are named for decoding and do none where one token is generated."""


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
    without its defect, so that nothing else can pass for it.
    """

    control: str
    relation: Relation
    check: str
    reference: PathName
    numerics: Numerics
    workload: str
    sequences: tuple[int, ...]
    generate: int
    temperature: float | None
    column: int | None
    covered: bool = True


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


def order_of(contract: Contract) -> tuple[int, int]:
    """Split and tile that the contract declares, or the defaults."""
    order = getattr(contract.subject, "order", None) or Order()
    return order.split, order.tile


def make(contract: Contract) -> Work:
    """Everything that verifying ``contract`` takes, in a fixed order."""
    prompts = {w.name: fill(w, seed=contract.seed, vocab=0) for w in contract.workloads}
    pairs = list(_pairs(contract, prompts))
    omitted = tuple(pair for pair in pairs if isinstance(pair, Omitted))
    cases = _cases(contract, [pair for pair in pairs if not isinstance(pair, Omitted)])
    units = _units(contract, cases)
    kernels = kernel_cases(contract, len(cases))
    run = {unit.workload: prompts[unit.workload] for unit in units}
    planted = list(_controls(contract, run, kernels))
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


def _pairs(contract: Contract, prompts: dict[str, Prompts]) -> Iterator[_Pair | Omitted]:
    for check in contract.path_checks:
        reference = reference_of(check)
        for workload in contract.workloads:
            if check.workloads is not None and workload.name not in check.workloads:
                continue
            filled = prompts[workload.name]
            for path in (p for name in check.paths for p in name.expand(workload.pad)):
                reason = why_idle(path, workload)
                if reason is not None:
                    yield Omitted(check.name, workload.name, str(path), reason)
                elif reference is not None and _same(path, reference, filled, contract.seed):
                    reason = f"{path} runs the same steps as {reference} here"
                    yield Omitted(check.name, workload.name, str(path), reason)
                else:
                    yield _Pair(check, workload.name, path, reference)


def why_idle(path: PathName, workload: Workload) -> str | None:
    """Why a path would show nothing in a workload, whatever it is compared with."""
    if workload.generate == 1 and path.kind in _IDLE:
        return "the one token comes from the prompt's own step: nothing is decoded"
    if path.kind == "streamed" and idle(path, workload):
        return f"every prompt fits into one chunk of {path.argument}: it is decode"
    if path.kind in ("prefix", "prefix-paged") and idle(path, workload):
        return f"no prompt goes on behind its first {path.argument} tokens"
    return None


def _same(path: PathName, reference: PathName, prompts: Prompts, seed: int) -> bool:
    return build(path, prompts, seed=seed) == build(reference, prompts, seed=seed)


def _columns(contract: Contract, relation: Relation) -> list[tuple[float | None, int | None]]:
    if contract.subject.kind == "attention" or relation in ("cache", "liveness", "trace"):
        return [(None, None)]
    return [(t, i) for i, t in enumerate(contract.numerics.temperatures)]


def _cases(contract: Contract, pairs: list[_Pair]) -> list[Case]:
    cases: list[Case] = []
    for execution, kv_cache in contract.numerics.formats():
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
                        numerics=Numerics(execution, kv_cache),
                        temperature=temperature,
                        column=column,
                    )
                )
    return cases


def _units(contract: Contract, cases: list[Case]) -> tuple[Unit, ...]:
    units = []
    for execution, kv_cache in contract.numerics.formats():
        numerics = Numerics(execution, kv_cache)
        for workload in contract.workloads:
            own = tuple(c for c in cases if (c.numerics, c.workload) == (numerics, workload.name))
            if own:
                units.append(Unit(f"{workload.name}, {numerics}", workload.name, numerics, own))
    return tuple(units)


def _controls(
    contract: Contract, prompts: dict[str, Prompts], kernels: Sequence[KernelCase]
) -> Iterator[ControlRun | KernelControl | Unplanted]:
    everything = contract.controls == "all"
    names = list(DESCRIBED) if everything else list(contract.controls)
    shown = {each.name for each in planned(contract)}
    for name in names:
        if name not in CONTROLS:
            tile = order_of(contract)[1]
            yield from kernel_controls(contract, kernels, name, tile, asked=not everything)
            continue
        relations = DESCRIBED[name].relations
        present = [each for each in relations if contract.checks_of(each)]
        for relation in present or relations[:1]:
            found = _orderless(contract, DESCRIBED[name]) or _control(
                contract, prompts, CONTROLS[name], relation
            )
            if name not in shown and not isinstance(found, str):
                found = f"it cannot show here: it takes {DESCRIBED[name].needs}"
            if isinstance(found, str):
                yield Unplanted(name, relation, found, asked=not everything)
            else:
                yield found


def _orderless(contract: Contract, control: Described) -> str | None:
    """Why a control of the reduction order is not planted: there is none of this project's."""
    if "order" not in control.features or declared(contract.subject) is not None:
        return None
    if contract.subject.kind not in control.subjects:
        return None  # there is a better reason
    return "it plants another order, and attention here is in none of this project's"


def _control(
    contract: Contract, prompts: dict[str, Prompts], control: Control, relation: Relation
) -> ControlRun | str:
    """Where ``control`` is run, or why it is not."""
    if contract.subject.kind not in DESCRIBED[control.name].subjects:
        return f"cannot be planted in a subject of kind {contract.subject.kind}"
    columns = _columns(contract, relation)
    if control.tempered:
        columns = [(t, i) for t, i in columns if t is not None and t != 1.0]
    if not columns:
        return "every temperature of the contract is 1"
    found = place(control, relation, contract, prompts, order_of(contract))
    if isinstance(found, str):
        return found
    return ControlRun(
        control=control.name,
        relation=relation,
        check=found.check,
        reference=found.reference,
        numerics=Numerics(*contract.numerics.formats()[0]),
        workload=found.workload,
        sequences=found.sequences,
        generate=found.generate,
        temperature=columns[0][0],
        column=columns[0][1],
        covered=found.covered,
    )

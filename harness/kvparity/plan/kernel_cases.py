"""Cases that look at the kernels themselves, and the controls that are planted in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvparity_contracts.checks import KernelCheck
from kvparity_contracts.contract import Contract


@dataclass(frozen=True)
class KernelNumerics:
    """One combination of execution and cache dtype; ``device``: whose products are computed."""

    execution: str
    kv_cache: str
    device: str | None = None

    def __str__(self) -> str:
        same = self.execution == self.kv_cache
        formats = self.execution if same else f"{self.execution}, kv {self.kv_cache}"
        return formats if self.device is None else f"{formats}, as {self.device}"


def all_numerics(contract: Contract) -> tuple[KernelNumerics, ...]:
    """Every combination that a contract has, in its order."""
    numerics = contract.numerics
    return tuple(KernelNumerics(*formats, numerics.device) for formats in numerics.formats())


@dataclass(frozen=True)
class KernelCase:
    """Decode against prefill at ``keys`` keys (order), or compiled for ``architecture`` (audit)."""

    id: str
    check: str
    relation: str
    numerics: KernelNumerics
    keys: int = 0
    architecture: str = ""


@dataclass(frozen=True)
class KernelControl:
    """One control, planted in one of the cases that its check has."""

    control: str
    case: KernelCase

    @property
    def relation(self) -> str:
        """The relation that must catch it."""
        return self.case.relation


@dataclass(frozen=True)
class Unplanted:
    """A control that cannot be planted here; ``asked``: the contract names it."""

    control: str
    relation: str
    reason: str
    asked: bool


def kernel_cases(contract: Contract, first: int) -> tuple[KernelCase, ...]:
    """The cases of all order and audit checks; ids are counted from ``first``."""
    cases: list[KernelCase] = []
    for check in contract.checks:
        if not isinstance(check, KernelCheck):
            continue
        for numerics in all_numerics(contract):
            for point in check.points(numerics.execution):
                identity, where = f"c{first + len(cases):03d}", (point.keys, point.architecture)
                cases.append(KernelCase(identity, check.name, check.relation, numerics, *where))
    return tuple(cases)


def kernel_control(
    cases: Sequence[KernelCase], name: str, relation: str, tile: int
) -> KernelControl:
    """A control planted in the smallest case of a relation that can show it."""
    fitting = [c for c in cases if c.relation == relation and (not c.keys or c.keys > tile)]
    return KernelControl(name, min(fitting, key=lambda each: each.keys))

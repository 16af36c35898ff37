"""What a check asks of a relation, and what it is told: values that pass between rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from kvparity.plan.cases import ControlRun
from kvparity.plan.planted import Reach
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CacheSnapshot
from kvparity.record.execute import Record, Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.bits_and_limits import Comparison
from kvparity.subjects.base import Subject
from kvparity_contracts.checks import Check
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import Control
from kvparity_contracts.paths import PathName


class Sided(Protocol):
    """Tensors of what was compared, and (number of the sequence, position) of their rows."""

    @property
    def index(self) -> Sequence[tuple[int, int]]:
        """By row."""

    def tensors(self) -> dict[str, Tensor]:
        """By name."""


@dataclass(frozen=True)
class ComparedSide:
    """One side of a comparison; what it gives is computed when it is asked for."""

    side: PathRun
    record: Callable[[], Record]
    take_snapshot: Callable[[], CacheSnapshot]


@dataclass(frozen=True)
class Asked:
    """One comparison, of a case or with a defect planted.

    ``column``: of the one temperature that is looked at; None: all columns. ``exact``: float64
    values of all compared rows, in the order of a record; it raises ``OracleError``.
    """

    check: Check
    execution: str
    column: int | None
    candidate: ComparedSide
    reference: Callable[[], ComparedSide]
    exact: Callable[[], Tensor]

    @property
    def limits(self) -> Mapping[str, float]:
        """Those of the check in this format."""
        return self.check.limits_in(self.execution)


@dataclass(frozen=True)
class RelationAnswer:
    """What was found, and what both sides gave; ``reference`` is None where nothing is kept."""

    found: Comparison
    candidate: Sided
    reference: Sided | None = None


class Reruns(Protocol):
    """What is found out of a path beyond its case, by running it again."""

    repeated: dict[PathName, bool]

    def repeats(self, path: PathName) -> bool:
        """Whether it gives the same bits again."""

    def nan_cause(self, path: PathName) -> str | None:
        """Why rows of it are NaN."""


@dataclass(frozen=True)
class ControlTrial:
    """A control that is run: what its check finds with the defect planted, and without it.

    ``part``: the part of the workload on which it is run, and all of its tokens.
    """

    setting: Setting
    job: ControlRun
    control: Control
    part: Callable[[], tuple[WorkloadPlans, Tokens]]
    clean: Callable[[], Comparison]
    planted: Callable[[], Comparison]


@dataclass(frozen=True)
class Planted:
    """What a check said of a planted defect; ``measured``: what its limits were checked against.

    ``reach``: of a fault that both kernels share, what every accuracy check sees of it.
    """

    caught: bool
    seen: str
    measured: Mapping[str, float | str] = field(default_factory=dict)
    reach: tuple[Reach, ...] = ()


@dataclass(frozen=True)
class Kernels:
    """Where kernels are looked at. ``subject`` loads it: a relation that runs none does not ask.

    ``device``: where what a relation runs itself is to run. ``folder``: the run's, where a relation
    keeps tokens that it drew; None: nowhere, so it cannot draw. ``kept``: what it computed for the
    other cases and controls of the run in this process.
    """

    contract: Contract
    base: Path
    subject: Callable[[], Subject]
    device: str = "cpu"
    folder: Path | None = None
    kept: list[object] = field(default_factory=list)

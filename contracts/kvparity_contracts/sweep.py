"""A sweep: contracts × devices × formats × environments × seeds, and which of these cells are run.

A cell left out of the matrix is left out by ``exclude``; what ``exclude``, ``include`` or
``priorities`` names and the sweep does not have is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from kvparity_contracts.base import (
    Distinct,
    DType,
    Fault,
    KeyPath,
    Model,
    OneOrMore,
    Several,
    Slug,
    ToTuple,
    closest,
    or_list,
    repeated,
)

Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]
DeviceName = Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?)$")]
"""As ``kvparity verify --device`` takes it."""
Names = Annotated[OneOrMore[Name], WithJsonSchema(or_list({"type": "string", "minLength": 1}))]
DTypes = Annotated[
    OneOrMore[DType], WithJsonSchema(or_list({"enum": ["float32", "float16", "bfloat16"]}))
]
Seeds = Annotated[OneOrMore[Seed], WithJsonSchema(or_list({"type": "integer", "minimum": 0}))]
AXES = ("contract", "device", "dtype", "version", "seed")
"""Of a cell, in the order of the matrix."""


class VersionSpec(Model):
    """An environment in which cells are run, and the releases that it must have."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]
    """What it is called: letters, digits, dots, hyphens."""
    packages: Annotated[dict[str, Name], Field(min_length=1)]
    """Releases that it must have, by package, such as `{transformers: 5.24.0}`; also `python`. A
    cell that finds others is void."""
    python: Name | None = None
    """Its interpreter, which has kvparity; relative to this file. Left out, the one that runs the
    sweep."""


class SweepSelection(Model):
    """Cells that have one of these values on each named axis."""

    contract: Names | None = None
    """As `contracts` has it."""
    device: Names | None = None
    """As `devices` has it."""
    dtype: DTypes | None = None
    """As `dtypes` has it."""
    version: Names | None = None
    """Names of `versions`."""
    seed: Seeds | None = None
    """As `seeds` has it."""

    def own_faults(self) -> Iterator[Fault]:
        """It selects everything."""
        if not any(getattr(self, axis) for axis in AXES):
            yield Fault((), "found no key", f"one or more of {', '.join(AXES)}")

    def takes(self, cell: SweepCell) -> bool:
        """Whether a cell is one of them."""
        asked = ((getattr(self, axis), getattr(cell, axis)) for axis in AXES)
        return all(values is None or value in values for values, value in asked)


class IncludedCell(Model):
    """One cell more."""

    contract: Name
    """A file, relative to this one, or a name of the library."""
    version: Name
    """A name of `versions`."""
    device: DeviceName = "cpu"
    """Where it runs."""
    dtype: DType | None = None
    """Its format; left out, what the contract says."""
    seed: Seed | None = None
    """Its seed; left out, the contract's."""


@dataclass(frozen=True)
class SweepCell:
    """One verification. ``dtype``, ``seed``: None leaves what the contract says."""

    contract: str
    device: str
    dtype: DType | None
    version: str
    seed: int | None

    def __str__(self) -> str:
        said = [self.contract, self.device, self.dtype, self.version]
        seed = "" if self.seed is None else f", seed {self.seed}"
        return ", ".join(each for each in said if each) + seed


class Sweep(Model):
    """A matrix of verifications."""

    version: Literal[1]
    """Version of this format: 1."""
    name: Slug
    """Name of the sweep: lower-case letters, digits, hyphens and underscores."""
    about: str = ""
    """What it is for, in a sentence."""
    contracts: Distinct[Name]
    """Contracts: files, relative to this one, or names of the library."""
    versions: Several[VersionSpec]
    """Environments."""
    devices: Distinct[DeviceName] = ("cpu",)
    """Devices, as `kvparity verify --device` takes them."""
    dtypes: Distinct[DType] | None = None
    """Formats that are put into every contract; left out, each runs in its own."""
    seeds: Distinct[Seed] | None = None
    """Seeds that are put into every contract; left out, each has its own."""
    include: Annotated[tuple[IncludedCell, ...], ToTuple] = ()
    """Cells that the matrix does not have."""
    exclude: Annotated[tuple[SweepSelection, ...], ToTuple] = ()
    """Cells of the matrix that are not run."""
    priorities: Annotated[tuple[SweepSelection, ...], ToTuple] = ()
    """What is run first: cells of the first selection, then of the second, then the others."""
    budget_minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Minutes after which the sweep stops and says what is left."""

    def own_faults(self) -> Iterator[Fault]:
        """What is named twice, or not there, or selects nothing."""
        names = [each.name for each in self.versions]
        for i in repeated(names):
            yield Fault(("versions", i, "name"), f"{names[i]!r} is listed twice", "a new name")
        for i, cell in enumerate(self.include):
            yield from _unknown(("include", i, "version"), [cell.version], names)
        has: dict[str, Sequence[str | int]] = {
            "contract": [*self.contracts, *(each.contract for each in self.include)],
            "device": [*self.devices, *(each.device for each in self.include)],
            "dtype": [*(self.dtypes or ()), *(each.dtype for each in self.include if each.dtype)],
            "version": names,
            "seed": [*(self.seeds or ()), *(c.seed for c in self.include if c.seed is not None)],
        }
        for key in ("exclude", "priorities"):
            for i, selection in enumerate(getattr(self, key)):
                faults = [
                    fault
                    for axis in AXES
                    for fault in _unknown((key, i, axis), getattr(selection, axis) or (), has[axis])
                ]
                yield from faults
                cells = self.matrix if key == "exclude" else self.cells
                if not faults and not any(map(selection.takes, cells)):
                    yield Fault((key, i), "no cell is like this", "cells of this sweep")
        if not self.cells:
            yield Fault(("exclude",), "every cell is excluded", "a cell that is run")

    @property
    def matrix(self) -> tuple[SweepCell, ...]:
        """Every cell of the axes, contract by contract."""
        axes = product(
            self.contracts,
            self.devices,
            self.dtypes or (None,),
            (each.name for each in self.versions),
            self.seeds or (None,),
        )
        return tuple(SweepCell(*values) for values in axes)

    @property
    def cells(self) -> tuple[SweepCell, ...]:
        """What is run, in order of priority."""
        kept = [cell for cell in self.matrix if not any(x.takes(cell) for x in self.exclude)]
        kept += [SweepCell(**each.model_dump()) for each in self.include]
        return tuple(sorted(dict.fromkeys(kept), key=self._rank))

    def _rank(self, cell: SweepCell) -> int:
        places = (i for i, each in enumerate(self.priorities) if each.takes(cell))
        return next(places, len(self.priorities))

    def environment(self, cell: SweepCell) -> VersionSpec:
        """The environment of a cell."""
        return next(each for each in self.versions if each.name == cell.version)


def _unknown(
    at: KeyPath, values: Sequence[str | int], options: Sequence[str | int]
) -> Iterator[Fault]:
    for i, value in enumerate(values):
        if value in options:
            continue
        words = list(dict.fromkeys(map(str, options)))
        expected = f"one of {', '.join(words)}" if words else f"no {at[-1]}: the sweep has none"
        place = (*at, i) if at[0] != "include" else at
        yield Fault(place, f"found {value!r}", expected, closest(value, words))

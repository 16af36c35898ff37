"""From a file to a sweep, and to the contract of each of its cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from kvparity_contracts.base import Fault, KeyPath
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.contract import Contract
from kvparity_contracts.described import DescribedSchema
from kvparity_contracts.files import load_whole
from kvparity_contracts.library import FOLDER, find
from kvparity_contracts.loader import (
    LoadedContract,
    decoded,
    in_order,
    load_bytes,
    parsed,
    problem,
    raw_bytes,
)
from kvparity_contracts.problems import ContractError, Problem
from kvparity_contracts.sides import Sides
from kvparity_contracts.sweep import Sweep, SweepCell
from kvparity_contracts.yamltext import Data, Text, read

PARTS = "a sweep: version, name, contracts, versions"
SCHEMA = FOLDER / "sweep.schema.json"
"""The committed JSON schema."""
_FILES = (("prefill",), ("decode",), ("append",), ("checkpoint",), ("tokens",),
          ("rollout", "checkpoint"), ("rollout", "file"), ("rollout", "adapter"),
          ("trainer", "checkpoint"), ("trainer", "file"), ("trainer", "adapter"))  # fmt: skip
"""Keys of a subject that name files, relative to the contract."""


@dataclass(frozen=True)
class LoadedSweep:
    """A valid sweep, its file, and the contract of each entry of ``contracts``."""

    sweep: Sweep
    path: Path
    text: Text = field(repr=False)
    contracts: dict[str, LoadedContract] = field(repr=False)


@dataclass(frozen=True)
class CellContract:
    """The contract of one cell. ``source``: as its file has it; ``raw``: what is verified."""

    cell: SweepCell
    source: LoadedContract
    contract: Contract
    raw: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Of what is verified."""
        return hashlib.sha256(self.raw).hexdigest()


def load_sweep(path: Path) -> LoadedSweep:
    """Read and validate a sweep and its contracts.

    Raises:
        ContractError: with every problem, each with its line and column.
    """
    file = str(path)
    text = read(decoded(raw_bytes(path, "a sweep file", file), file))
    sweep = parsed(text, file, Sweep, PARTS)
    found: dict[str, LoadedContract] = {}
    problems: list[Problem] = []
    names: dict[str, KeyPath] = {each: ("contracts", i) for i, each in enumerate(sweep.contracts)}
    names |= {
        each.contract: ("include", i, "contract")
        for i, each in enumerate(sweep.include)
        if each.contract not in names
    }
    named: dict[str, str] = {}
    for name, at in names.items():
        try:
            beside = path.parent / name
            found[name] = load_whole(beside if Path(name).suffix else find(name))
        except ContractError as error:
            faults = [Fault(at, str(each)) for each in error.problems]
            problems += [problem(file, text, text.place(at), each) for each in faults]
            continue
        own = found[name].contract.name
        if own in named:
            fault = Fault(at, f"found a contract that is called {own}, as {named[own]} is")
            problems.append(problem(file, text, text.place(at), fault))
        named[own] = name
    loaded = LoadedSweep(sweep, path, text, found)
    problems += [] if problems else _unfit(loaded)
    if problems:
        raise ContractError(in_order(problems))
    return loaded


def _unfit(loaded: LoadedSweep) -> Iterator[Problem]:
    """Cells whose contract cannot take what the sweep puts into it."""
    told = set()
    for cell in loaded.sweep.cells:
        try:
            cell_contract(loaded, cell)
        except ValueError as error:
            words = str(error)
            if words not in told:
                told.add(words)
                at = ("contracts", loaded.sweep.contracts.index(cell.contract)) if (
                    cell.contract in loaded.sweep.contracts) else ("include",)  # fmt: skip
                fault = Fault(at, words, "another contract, or exclude this cell")
                yield problem(str(loaded.path), loaded.text, loaded.text.place(at), fault)


def cell_contract(loaded: LoadedSweep, cell: SweepCell) -> CellContract:
    """The contract of a cell: its file's, with the cell's format and seed put in.

    Relative files in it become absolute, so that it can lie anywhere.

    Raises:
        ValueError: it cannot take them; in words.
    """
    source = loaded.contracts[cell.contract]
    data = json.loads(json.dumps(source.text.data))  # a copy of what JSON has as YAML does
    _put_in(data, source.contract, cell)
    _absolute(data["subject"], source.base.resolve())
    raw = json.dumps(data, indent=1, ensure_ascii=False).encode()
    try:
        return CellContract(cell, source, load_bytes(raw, source.path).contract, raw)
    except ContractError as error:
        first = replace(error.problems[0], line=0, file=cell.contract)
        raise ValueError(f"it cannot take {_given(cell)}: {first}") from error


def _given(cell: SweepCell) -> str:
    given = [cell.dtype or "", "" if cell.seed is None else f"seed {cell.seed}"]
    return " and ".join(filter(None, given))


def _put_in(data: dict[str, Data], contract: Contract, cell: SweepCell) -> None:
    if cell.seed is not None:
        data["seed"] = cell.seed
    if cell.dtype is None:
        return
    if isinstance(contract.subject, Sides):
        raise ValueError(
            f"it cannot take {cell.dtype}: its two sides state their own formats, so there is no "
            "numerics.execution"
        )
    numerics, own = data["numerics"], contract.numerics.execution
    assert isinstance(numerics, dict)  # it is valid
    numerics["execution"] = cell.dtype
    checks = data["checks"]
    assert isinstance(checks, list)
    for entry, check in zip(checks, contract.checks, strict=True):
        limits = entry.get("limits") if isinstance(entry, dict) else None
        if not isinstance(check, Accuracy) or not isinstance(limits, dict):
            continue
        by_format = [limits[each] for each in own if each in limits]
        if not by_format and cell.dtype not in own:
            raise ValueError(
                f"it cannot take {cell.dtype}: limits of check {check.name!r} are for "
                f"{', '.join(own)} (limits by format can have {cell.dtype}, too)"
            )
        if by_format and cell.dtype not in limits:
            raise ValueError(
                f"it cannot take {cell.dtype}: check {check.name!r} has no limits for it"
            )
        if by_format:
            assert isinstance(entry, dict)
            entry["limits"] = limits[cell.dtype]


def files_of(given: CellContract) -> tuple[Path, ...]:
    """The files and folders that the contract of a cell names, which are absolute in it."""
    return tuple(_absolute(json.loads(given.raw)["subject"], Path("/")))


def _absolute(subject: Data, base: Path) -> list[Path]:
    """Make what it names absolute; returns what that is."""
    found = []
    for path in _FILES:
        inner = subject
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or not isinstance(name := inner.get(path[-1]), str):
            continue
        target, colon, function = name.rpartition(":") if path[0] in _FUNCTIONS else (name, "", "")
        if path[0] not in _FUNCTIONS or target.endswith(".py"):
            inner[path[-1]] = f"{base / target}{colon}{function}"
            found.append(base / target)
    return found


_FUNCTIONS = ("prefill", "decode", "append")


def schema_text() -> str:
    """The JSON schema of sweeps, as the committed file has it."""
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    found = Sweep.model_json_schema(schema_generator=DescribedSchema)
    return json.dumps({**draft, **found}, indent=2, ensure_ascii=False) + "\n"

"""The cells of a sweep with all that decides what they show: by its hash a cell is found again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity import __version__
from kvparity.core.errors import UnsupportedError
from kvparity.run.identity import own_sources, subject_files
from kvparity.sweeps.store_rows import hash_of_sources
from kvparity_contracts.sweep import SweepCell, VersionSpec
from kvparity_contracts.sweep_file import CellContract, LoadedSweep, cell_contract


@dataclass(frozen=True)
class PlannedCell:
    """One verification that is to be run. ``python``: its interpreter; None: that of the sweep."""

    id: str
    sweep: str
    given: CellContract
    environment: VersionSpec
    python: Path | None
    sources: str | None
    """a hash of the contract's own files"""

    @property
    def cell(self) -> SweepCell:
        """Its place in the matrix."""
        return self.given.cell

    @property
    def name(self) -> str:
        """Of its contract."""
        return self.given.contract.name

    @property
    def seed(self) -> int:
        """That it runs with."""
        return self.given.contract.seed


def planned(loaded: LoadedSweep) -> tuple[PlannedCell, ...]:
    """Every cell, in order of priority.

    Raises:
        UnsupportedError: an interpreter is not there.
    """
    files = {name: subject_files(each) for name, each in loaded.contracts.items()}
    found = []
    for cell in loaded.sweep.cells:
        environment = loaded.sweep.environment(cell)
        python = _interpreter(loaded, environment)
        given = cell_contract(loaded, cell)
        own = files[cell.contract]
        key = _hash(given, environment, python, own)
        name, sources = loaded.sweep.name, _sources(given, own)
        found.append(PlannedCell(key, name, given, environment, python, sources))
    return tuple(found)


def _interpreter(loaded: LoadedSweep, environment: VersionSpec) -> Path | None:
    if environment.python is None:
        return None
    # Not resolved: a virtual environment is known by the link that leads to its interpreter.
    found = Path.cwd() / loaded.path.parent / Path(environment.python).expanduser()
    if not found.is_file():
        raise UnsupportedError(
            f"{loaded.path}: version {environment.name}: there is no interpreter {found}"
        )
    return found


def _sources(given: CellContract, files: Mapping[str, str]) -> str | None:
    """As the run of the cell finds them: its contract has the prompts, and nothing lies beside."""
    prompts = {str(path.resolve()) for path in given.source.prompt_files}
    own = {name: digest for name, digest in files.items() if name not in prompts}
    apart = replace(given.source, contract=given.contract, path=Path(os.devnull, "contract.yaml"))
    return hash_of_sources(own_sources(apart, own))


def _named(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """The subject's files by their hashes, named from the contract's folder."""
    base = folder.resolve()
    named = {}
    for name, digest in files.items():
        path = Path(name)
        named[str(path.relative_to(base)) if path.is_relative_to(base) else name] = digest
    return named


def _hash(
    given: CellContract,
    environment: VersionSpec,
    python: Path | None,
    files: Mapping[str, str],
) -> str:
    """Of the contract's text, what is put into it, the environment and the sources."""
    about = {
        "contract": given.source.sha256,
        "device": given.cell.device,
        "dtype": given.cell.dtype,
        "seed": given.contract.seed,
        "kvparity": __version__,
        "packages": dict(environment.packages),
        "python": None if python is None else str(python),
        "files": _named(given.source.base, files),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]

"""What a run keeps of its contract and of the pair's source, so that both may be edited later."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvparity.core.errors import RunFolderError
from kvparity.report.kept_contract import FOLDER, contract_bytes, keep_file
from kvparity.report.run_dir import read_identity
from kvparity.run import worker
from kvparity.run.identity import changed_files, function_names, hash_of, source_of, sources
from kvparity.subjects.pair.callables import instead
from kvparity_contracts.loader import LoadedContract, load_bytes

BIGGEST = 1 << 24
"""Bytes of a file that is kept."""


@dataclass(frozen=True)
class Since:
    """Names of the subject's files that are others now than in the run: ``changed`` are used as
    they are now, of ``kept`` the copy that the run kept."""

    changed: tuple[str, ...]
    kept: tuple[str, ...]


def keep(folder: Path, loaded: LoadedContract) -> None:
    """Keep the contract, files of prompts, and the source files of a pair that lie beside it or
    that it names.

    Modules that are installed are told by their version. What is there already is left.

    Raises:
        RunFolderError: a file cannot be written.
    """
    keep_file(folder, f"contract{Path(loaded.path).suffix}", loaded.raw)
    prompts = {path.resolve(): hash_of(path) for path in loaded.prompt_files}
    for source, sha in (prompts | dict(own_sources(loaded))).items():
        if source.is_file() and source.stat().st_size <= BIGGEST:
            keep_file(folder, _name(source, sha), source.read_bytes())


def contract_of(folder: Path) -> LoadedContract:
    """The contract of a run, as it was then: that of its file, or the copy that the run kept.

    Raises:
        RunFolderError: the folder holds no run, or nothing is left of the contract.
    """
    head = folder / "identity.json"
    if not head.is_file():
        raise RunFolderError(f"{folder} holds no run (no identity.json in it)")
    identity = read_identity(head)
    path, sha = Path(str(identity["path"])), str(identity.get("contract"))
    return load_bytes(contract_bytes(folder, path, sha), path, _copies(folder))


@contextmanager
def as_in(folder: Path, loaded: LoadedContract, *, current: bool) -> Iterator[Since]:
    """Let the subject's functions be those of the run, as far as their files were kept.

    ``current``: those that are there now.

    Raises:
        RunFolderError: a copy is not what the run kept.
    """
    with found_again(folder, loaded):
        copies = {} if current else _copies(folder)
        worker.forget()  # what this process had loaded for the run was of other functions
        with instead(copies):
            yield since_then(folder, loaded, copies)


@contextmanager
def found_again(folder: Path, loaded: LoadedContract) -> Iterator[None]:
    """Let modules be found where the run found them: pytest, or a PYTHONPATH, may have said where,
    and neither says it to a later command.
    """
    roots, had = _roots(folder, loaded), list(sys.path)
    sys.path[:0] = roots
    try:
        yield
    finally:
        sys.path[:] = had


def since_then(folder: Path, loaded: LoadedContract, kept: Collection[Path] = ()) -> Since:
    """What has changed. ``kept``: files of which the copy is used; those of prompts are among them
    always, because they are part of the contract.
    """
    prompts = {path.resolve() for path in loaded.prompt_files}
    copies = {str(path) for path in _copies(folder) if path in prompts or path in kept}
    changed = changed_files(loaded, folder)
    return Since(*(_names(each for each in changed if (each in copies) is had)
                   for had in (False, True)))  # fmt: skip


def _roots(folder: Path, loaded: LoadedContract) -> list[str]:
    """The folders of modules that would not be found, or in another file than the run's."""
    before = read_identity(folder / "identity.json").get("subject_files")
    files = [Path(each) for each in before] if isinstance(before, dict) else []
    base = Path(loaded.path).resolve().parent
    found: dict[str, None] = {}
    for target in (name.rpartition(":")[0] for name in function_names(loaded)):
        if target.endswith(".py") or source_of(target, base) in files:
            continue
        parts = tuple(target.split("."))
        for file in files:
            module = file.parent if file.stem == "__init__" else file.with_name(file.stem)
            if module.parts[-len(parts) :] == parts:
                found[str(module.parents[len(parts) - 1])] = None
    return list(found)


def _names(files: Iterable[str]) -> tuple[str, ...]:
    return tuple(Path(each).name for each in files)


def own_sources(loaded: LoadedContract) -> Mapping[Path, str]:
    """Source files that are the user's, with their hashes now."""
    base = Path(loaded.path).resolve().parent
    named = {base / name.rpartition(":")[0] for name in function_names(loaded)}
    return {
        path: hash_of(path)
        for path in sources(loaded)
        if path.suffix == ".py" and (path in named or path.is_relative_to(base))
    }


def _copies(folder: Path) -> dict[Path, Path]:
    """By file that has changed: its copy."""
    before = read_identity(folder / "identity.json").get("subject_files")
    found: dict[Path, Path] = {}
    for name, sha in before.items() if isinstance(before, dict) else ():
        path = Path(name)
        copy = folder / FOLDER / _name(path, str(sha))
        if copy.is_file() and hash_of(path) != sha:
            if hash_of(copy) != sha:
                raise RunFolderError(
                    f"{copy} was changed since the run kept it; --current runs {path} as it is now"
                )
            found[path] = copy
    return found


def _name(path: Path, sha: str) -> str:
    """Two files may have one name."""
    return f"{sha[:12]}-{path.name}"

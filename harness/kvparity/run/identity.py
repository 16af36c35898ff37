"""What a run is about: a run is resumed only where all of it is as it was."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path

from kvparity.core.environment import Environment
from kvparity.report.run_dir import read_identity
from kvparity.report.schema import SCHEMA_VERSION
from kvparity.run.invariant_switch import asked
from kvparity.subjects.server.subject import connected
from kvparity_contracts.json_types import JsonValue
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.served import ServerSubject
from kvparity_contracts.sides import AnySide, RecordedSide, ServerSide, Sides
from kvparity_contracts.subjects import Attention

_OF_A_CHECKPOINT = (".json", ".safetensors", ".model", ".txt", ".jinja")
"""Settings, weights, tokenizers and chat templates."""


def identity(
    loaded: LoadedContract, environment: Environment, tiles: dict[str, str]
) -> dict[str, JsonValue]:
    """JSON values: schema, contract, versions, device, tiles in force, and the subject's files."""
    return {
        "schema_version": SCHEMA_VERSION,
        "contract": loaded.sha256,
        "path": str(Path(loaded.path).resolve()),
        "versions": environment.versions,
        "device": environment.device_name,
        "triton_mode": environment.triton_mode,
        "subject_files": subject_files(loaded),
        "invariant": asked(loaded),
        "numerics_device": loaded.contract.numerics.device,
        "tiles": tiles,
    }


def subject_files(loaded: LoadedContract) -> dict[str, str]:
    """What a run depends on beside the contract: files of prompts, and what the subject is made of.

    Hash of every file of prompts and source file of a kernel pair; name, size and time of a
    checkpoint's files; what a server says that it is.

    What such a file imports in turn is not looked at. A file that is not there is left to the
    subject to complain of.
    """
    prompts = {str(path.resolve()): hash_of(path) for path in loaded.prompt_files}
    return prompts | _of_subject(loaded)


def own_sources(loaded: LoadedContract, files: Mapping[str, str]) -> dict[str, str]:
    """The hashes in ``files`` (:func:`subject_files`) that are of the contract's own files.

    Prompts, recordings, and the source files that it names or that lie beside it; none of an
    installed package, whose release says what it is. By name, with as much of the path as tells
    them apart, so that they are known wherever they lie.
    """
    base = loaded.base.resolve()
    modules = {name.rpartition(":")[0] for name in function_names(loaded)}
    installed = {str(source_of(each, base)) for each in modules if _beside(each, base) is None}
    hashed = {
        Path(name): digest
        for name, digest in files.items()
        if name not in installed and re.fullmatch("[0-9a-f]{64}", digest)
    }
    most = max((len(path.parts) for path in hashed), default=0)
    for size in range(1, most + 1):
        named = {"/".join(path.parts[-size:]): digest for path, digest in hashed.items()}
        if len(named) == len(hashed):
            return named
    return {}


def sources_of_run(loaded: LoadedContract, folder: Path) -> dict[str, str]:
    """:func:`own_sources` as the run in ``folder`` noted them when it began."""
    noted = read_identity(folder / "identity.json").get("subject_files")
    files = noted if isinstance(noted, dict) else {}
    return own_sources(loaded, {name: str(digest) for name, digest in files.items()})


def _of_subject(loaded: LoadedContract) -> dict[str, str]:
    base, subject = Path(loaded.path).resolve().parent, loaded.contract.subject
    if isinstance(subject, Attention):
        return {str(path): hash_of(path) for path in sources(loaded)}
    if isinstance(subject, Sides):
        files = {} if subject.tokens is None else _recording(base, subject.tokens)
        for side in (subject.rollout, subject.trainer):
            files |= _side(base, side)
        return files
    if isinstance(subject, ServerSubject):
        return {subject.url: connected(subject).facts.words()}
    checkpoint = getattr(subject, "checkpoint", None)
    return _checkpoint(base, checkpoint)


def sources(loaded: LoadedContract) -> list[Path]:
    """The source files of a kernel pair, those that can be found."""
    base = Path(loaded.path).resolve().parent
    found = {source_of(name.rpartition(":")[0], base) for name in function_names(loaded)}
    return sorted((path for path in found if path is not None), key=str)


def function_names(loaded: LoadedContract) -> list[str]:
    """The functions that a contract names, if its subject is a pair."""
    subject = loaded.contract.subject
    if not isinstance(subject, Attention):
        return []
    return [each for each in (subject.prefill, subject.decode, subject.append) if each is not None]


def _side(base: Path, side: AnySide) -> dict[str, str]:
    if isinstance(side, RecordedSide):
        return _recording(base, side.file)
    if isinstance(side, ServerSide):
        return {side.url: connected(side).facts.words()}
    return {
        f"{folder}/{name}": about
        for folder in (side.checkpoint, side.adapter)
        for name, about in _checkpoint(base, folder).items()
    }


def _recording(base: Path, name: str) -> dict[str, str]:
    return {str(base / name): hash_of(base / name)}


def changed_files(loaded: LoadedContract, folder: Path) -> tuple[str, ...]:
    """The subject's files that are others now than when the run in ``folder`` began."""
    before, now = (
        read_identity(folder / "identity.json").get("subject_files"),
        subject_files(loaded),
    )
    if not isinstance(before, dict):
        return ()
    names = sorted(before.keys() | now.keys())
    return tuple(each for each in names if before.get(each) != now.get(each))


def _checkpoint(base: Path, checkpoint: str | None) -> dict[str, str]:
    if checkpoint is None:
        return {}
    facts = {}
    for path in sorted((base / checkpoint).glob("*")):
        if path.suffix in _OF_A_CHECKPOINT and path.is_file():
            about = path.stat()
            facts[path.name] = f"{about.st_size} bytes, {about.st_mtime_ns}"
    return facts


def source_of(target: str, base: Path) -> Path | None:
    """The file that a function is imported from; nothing is imported to find it."""
    if (beside := _beside(target, base)) is not None:
        return beside
    top, _, inner = target.partition(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not inner:
        return Path(spec.origin) if spec and spec.origin else None
    folders = spec.submodule_search_locations or ()
    return next((found for each in folders if (found := _module(Path(each), inner))), None)


def _beside(target: str, base: Path) -> Path | None:
    """The file of a function that is named by its file, or whose module lies below ``base``."""
    return base / target if target.endswith(".py") else _module(base, target)


def _module(folder: Path, name: str) -> Path | None:
    """The file of a module below a folder, in the order in which Python looks for one."""
    stem = folder.joinpath(*name.split("."))
    files = [stem / "__init__.py", *(stem.with_name(stem.name + each) for each in all_suffixes())]
    return next((file for file in files if file.is_file()), None)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, or that there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"

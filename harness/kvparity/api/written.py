"""A contract that is made of a call's arguments: written beside its run, then verified."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kvparity.api.borrowed import borrowed
from kvparity.api.reports import Report
from kvparity.api.verify import verify
from kvparity.core.errors import RunFolderError
from kvparity.core.isolation.inside import here, inside
from kvparity.core.lock import held
from kvparity.run.locate_red import kept_located
from kvparity.run.options import new_folder
from kvparity.subjects.pair.callables import Kernel, given
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.loader import load
from kvparity_contracts.problems import ContractError

_NAME = r"[a-z0-9]+([-_][a-z0-9]+)*"


@dataclass(frozen=True)
class WrittenRun:
    """``folder``: of the run. ``file``: its contract, beside it."""

    caller: str
    folder: Path

    @property
    def file(self) -> Path:
        """The contract."""
        return self.folder.parent / f"{self.folder.name}.json"


def named(name: object) -> str:
    """A name that a report and its folder can have.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ValueError(
            f"name: found {name!r}, expected lower-case letters, digits, hyphens and underscores"
        )
    return name


@contextmanager
def written(
    document: Callable[[Path], JsonObject], *, caller: str, name: str, run_dir: str | Path | None
) -> Iterator[WrittenRun]:
    """What ``document`` says for a run's folder, as a file that is nobody else's. If no run comes
    of it, the file is gone at the end.

    Raises:
        ValueError: the document is no JSON.
        RunFolderError: a file of this name is there.
    """
    folder = Path(run_dir) if run_dir is not None else new_folder(named(name))
    folder = folder.absolute()  # commands in the report work from any folder
    run = WrittenRun(caller, folder)
    ours = False
    try:
        run.file.parent.mkdir(parents=True, exist_ok=True)
        _write(run, document(folder))
        ours = True
        yield run
    except RunFolderError:
        if ours:  # the folder is another's, and from now on so is a file of this name
            run.file.unlink()
            ours = False
        raise
    finally:
        empty = folder.is_dir() and not any(folder.iterdir())
        if ours and (not folder.exists() or (run_dir is None and empty)):  # the run was refused
            run.file.unlink(missing_ok=True)  # first: the folder's name may be another's then
        with suppress(OSError):  # it holds evidence
            if run_dir is None:
                folder.rmdir()


def _write(run: WrittenRun, document: JsonObject) -> None:
    try:
        text = json.dumps(document, indent=1)
    except TypeError as error:
        expected = "expected numbers, texts, and lists or mappings of them"
        raise ValueError(f"{run.caller}: {error}; {expected}") from None
    try:
        with run.file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise RunFolderError(
            f"{run.file} is there, and what is checked is written there; give another run_dir"
        ) from None


def verified(
    run: WrittenRun,
    *,
    device: str | None,
    timeout: float,
    jobs: int | None = None,
    live: Mapping[str, Kernel] | None = None,
    locate_s: float = 0.0,
) -> Report:
    """``live``: functions of this process, by the names that they have in the contract; the
    subject runs here. ``locate_s``: seconds that are spent on where cases that differ part, in a
    process of its own.

    Raises:
        ValueError: an argument means nothing to the contract; in its words.
    """
    try:
        loaded = load(run.file)
        with borrowed(), here(bool(live) or inside()), given(live or {}):
            found = verify(
                loaded, device=device, jobs=jobs, run_dir=run.folder, timeout=timeout,
                command=f"kvparity.{run.caller}",
            )  # fmt: skip
        with held(run.folder, "locate") if locate_s else nullcontext():
            return replace(found, run=kept_located(found.run, loaded, run.folder, locate_s))
    except ContractError as error:
        words = "; ".join(_words(str(each), run.file) for each in error.problems)
        raise ValueError(f"{run.caller}: {words}") from None


def _words(problem: str, file: Path) -> str:
    """Without the place in a file that the caller did not write."""
    rest = problem.removeprefix(f"{file}:")
    return rest.split(": ", 1)[-1] if rest != problem else problem

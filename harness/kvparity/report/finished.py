"""A run folder read again for a report: ``run.json``, and what lies beside it, as values."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from kvparity.births.document import KeptAccount, file_of
from kvparity.core.errors import RunFolderError
from kvparity.core.values import sentence
from kvparity.plan.results import CaseLine
from kvparity.report import run_files
from kvparity.report.compare.changes import FolderRead
from kvparity.report.compare.rows import ran
from kvparity.report.document import RunReport
from kvparity.report.kept_contract import contract_bytes
from kvparity.report.schema import SCHEMA_VERSION, schema_of

_HALVES = ("before", "after")
"""Of a run of ``verify --invariant``."""


def finished(folder: Path) -> RunReport:
    """The report of a run that has ended.

    Raises:
        RunFolderError: there is none, or it is not as it was written; one sentence.
    """
    file = folder / "run.json"
    if not file.exists():
        raise RunFolderError(_why_none(folder))
    found = run_files.whole(file, "verdict")
    if schema_of(found) != SCHEMA_VERSION:
        raise RunFolderError(
            f"{file} has schema {schema_of(found)}, and reports are made of schema "
            f"{SCHEMA_VERSION}: verify again"
        )
    try:
        return RunReport.model_validate(found)
    except ValidationError as error:
        raise RunFolderError(
            f"{file}: {sentence(error)}. It was changed since it was written; --resume writes it "
            "again"
        ) from None


def _why_none(folder: Path) -> str:
    if all((folder / half / "run.json").is_file() for half in _HALVES):
        return f"{folder} holds two runs; give {folder / _HALVES[0]} or {folder / _HALVES[1]}"
    if (folder / "identity.json").is_file():
        return f"{folder} holds a run that has not ended (no run.json in it); --resume ends it"
    return f"{folder} holds no run (no run.json in it)"


def located(folder: Path, case: CaseLine) -> KeptAccount | None:
    """The account of a case, or None where nobody asked for one.

    Raises:
        RunFolderError: its file is not as it was written.
    """
    file = file_of(folder, case.id)
    if not file.exists():
        return None
    found = run_files.whole(file, "case")
    try:
        account = KeptAccount.model_validate(found)
    except ValidationError as error:
        words = f"{file}: {sentence(error)}. It was changed since it was written"
        raise RunFolderError(f"{words}; locate {case.id} again, or remove it") from None
    if account.case != case.id:
        raise RunFolderError(f"{file} is about case {account.case}; remove it")
    return account


def contract_text(folder: Path, report: RunReport) -> str | None:
    """The contract as it was in the run; None where nothing is left of it."""
    try:
        found = contract_bytes(folder, Path(report.contract.path), report.contract.sha256)
    except RunFolderError:
        return None
    return found.decode("utf-8-sig")


def read(folder: Path) -> FolderRead:
    """All of a finished run that is compared with another's.

    Raises:
        RunFolderError: see :func:`finished`.
    """
    report = finished(folder)
    return FolderRead(folder, report, contract_text(folder, report), ran(folder))

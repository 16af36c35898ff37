"""A store read again by DuckDB: its rows as values, and anybody's SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from kvparity.core.errors import RunFolderError, UnsupportedError
from kvparity.core.values import sentence
from kvparity.plan.results import Outcome
from kvparity.sweeps.store import CELLS, is_store
from kvparity.sweeps.store_rows import StoreRow

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class SqlAnswer:
    """What a query gave."""

    names: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def rows_in(folder: Path, cell: str | None = None) -> tuple[StoreRow, ...]:
    """Every row of a store, in the order in which verifications ended; of one cell alone.

    Raises:
        RunFolderError: there is no store, or a file in it is none of this project's.
    """
    if cell is not None and not (folder / CELLS / f"{cell}.parquet").is_file():
        return ()
    with _opened(folder, "*" if cell is None else cell) as database:
        there = {str(row[0]) for row in database.execute("DESCRIBE cases").fetchall()}
        fields = StoreRow.model_fields
        names = [name for name in fields if fields[name].is_required() or name in there]
        listed = ", ".join(f'"{name}"' for name in names)
        try:
            found = database.execute(f"SELECT {listed} FROM cases ORDER BY ended, cell, case_id")
        except _errors() as error:
            raise RunFolderError(f"{folder} is no store of this version: {_first(error)}") from None
        values = found.fetchall()
    try:
        return tuple(StoreRow.model_validate(dict(zip(names, row, strict=True))) for row in values)
    except ValidationError as error:
        raise RunFolderError(f"{folder}: {sentence(error)}. It was changed") from None


def ended_as(folder: Path, cell: str) -> tuple[Outcome, str]:
    """(verdict, why) of a verification that ended.

    Raises:
        RunFolderError: its file is none of this project's.
    """
    rows = rows_in(folder, cell)
    if not rows:
        raise RunFolderError(f"{folder}/{CELLS}/{cell}.parquet holds no row; remove it")
    return rows[0].cell_verdict, rows[0].cell_reason


def asked(folder: Path, sql: str) -> SqlAnswer:
    """What a query over ``cases`` gives; it can neither read nor write a file.

    Raises:
        RunFolderError: there is no store.
        UnsupportedError: DuckDB refuses the query; in its words.
    """
    with _opened(folder, "*") as database:
        try:
            _locked(database)
            found = database.execute(sql)
            names = tuple(str(each[0]) for each in found.description or ())
            return SqlAnswer(names, tuple(map(tuple, found.fetchall())))
        except _errors() as error:
            raise UnsupportedError(f"--sql: {_first(error)}") from None


@contextmanager
def _opened(folder: Path, cells: str) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    if not is_store(folder):
        raise RunFolderError(f"{folder} holds no store (no folder {CELLS} in it)")
    files: Sequence[Path] = sorted((folder / CELLS).glob(f"{cells}.parquet"))
    if not files:
        raise RunFolderError(f"{folder} holds no verification that ended")
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        names = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
        try:
            database.execute(
                f"CREATE VIEW cases AS SELECT * FROM read_parquet([{names}], union_by_name = true)"
            )
        except _errors() as error:
            raise RunFolderError(f"{folder} cannot be read: {_first(error)}") from None
        yield database


def _locked(database: duckdb.DuckDBPyConnection) -> None:
    """From here on no file is read or written: the rows are in memory."""
    for statement in (
        "CREATE TABLE kept AS FROM cases",
        "DROP VIEW cases",
        "ALTER TABLE kept RENAME TO cases",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        database.execute(statement)


def _errors() -> type[Exception]:
    import duckdb

    found: type[Exception] = duckdb.Error
    return found


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0]

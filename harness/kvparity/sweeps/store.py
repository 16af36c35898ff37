"""The folder of a store: one Parquet file for each verification that ended, whole or not there.

``cells/ID.parquet`` (rows), ``contracts/ID.yaml`` (what was verified), ``runs/ID`` (its run folder)
and ``logs/ID.log`` (what its process said).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.core.errors import RunFolderError, UnsupportedError

if TYPE_CHECKING:
    import pyarrow

    from kvparity.sweeps.store_rows import StoreRow

CELLS = "cells"
PARTS = (CELLS, "contracts", "runs", "logs")
"""Its folders."""


@dataclass(frozen=True)
class SweepStore:
    """What ended, by the id of its cell."""

    folder: Path

    def file(self, cell: str) -> Path:
        """Its rows."""
        return self.folder / CELLS / f"{cell}.parquet"

    def left(self, cell: str) -> Path:
        """What is said of one that could not be measured; no end."""
        return self.folder / CELLS / f"{cell}.left.parquet"

    def contract(self, cell: str) -> Path:
        """What is verified."""
        return self.folder / "contracts" / f"{cell}.yaml"

    def run(self, cell: str) -> Path:
        """Its evidence."""
        return self.folder / "runs" / cell

    def log(self, cell: str) -> Path:
        """What its process said."""
        return self.folder / "logs" / f"{cell}.log"

    def ended(self, cell: str) -> bool:
        """Whether it needs no further run."""
        return self.file(cell).is_file()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Make its folders, and keep other sweeps out until the end.

        Raises:
            RunFolderError: another sweep writes here, or it cannot be written.
        """
        try:
            for part in PARTS:
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("wb")
        except OSError as error:
            raise RunFolderError(f"cannot write to {self.folder}: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                words = f"another kvparity writes to {self.folder}; wait for it, or stop it"
                raise RunFolderError(words) from None
            yield

    def write(self, cell: str, rows: Sequence[StoreRow]) -> None:
        """Its rows, all or none of them.

        Raises:
            RunFolderError: the file cannot be written.
        """
        self.left(cell).unlink(missing_ok=True)  # first: killed in between, nothing stands twice
        _write(self.file(cell), rows)

    def note(self, cell: str, row: StoreRow) -> None:
        """Why it could not be measured; it is run again.

        Raises:
            RunFolderError: the file cannot be written.
        """
        _write(self.left(cell), [row])


def _write(whole: Path, rows: Sequence[StoreRow]) -> None:
    from pyarrow import parquet

    part = whole.with_name(f".{whole.name}.part-{os.getpid()}")
    try:
        parquet.write_table(_table(rows), part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(whole)
    except OSError as error:
        words = f"{whole} could not be written: {error.strerror or error}"
        raise RunFolderError(words) from error


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, rather than that of a run."""
    return (folder / CELLS).is_dir()


def needed() -> None:
    """Refuse a machine that can neither write a store nor read one.

    Raises:
        UnsupportedError: what is missing, and how it is installed.
    """
    for name in ("pyarrow", "duckdb", "packaging"):
        try:
            __import__(name)
        except ImportError as error:
            raise UnsupportedError(
                f"a store is written by pyarrow and read by DuckDB, and {name} cannot be imported "
                f'({error}): pip install "kvparity[history]"'
            ) from error


def _table(rows: Sequence[StoreRow]) -> pyarrow.Table:
    import pyarrow

    from kvparity.sweeps.store_rows import StoreRow

    kinds = {"max_ulp": pyarrow.int64(), "seed": pyarrow.int64(), "attempts": pyarrow.int64()}
    kinds["measured"] = pyarrow.bool_()
    kinds["ended"] = pyarrow.timestamp("s", tz="UTC")
    schema = pyarrow.schema(
        (name, kinds.get(name, pyarrow.string())) for name in StoreRow.model_fields
    )
    return pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema)

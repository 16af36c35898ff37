"""A store that is read again: of an earlier version, or changed by somebody."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet
from sweep_rows import row

from kvparity.core.errors import RunFolderError
from kvparity.sweeps.reading import asked, ended_as, rows_in
from kvparity.sweeps.store import SweepStore


@pytest.fixture
def store(tmp_path: Path) -> Path:
    found = SweepStore(tmp_path / "store")
    with found.alone():
        for each in (row(), row("5.24.0", "differs")):
            found.write(each.cell, [each])
    return found.folder


def test_what_is_no_row_of_a_store_is_said(store: Path) -> None:
    assert rows_in(store, "none") == ()
    with pytest.raises(RunFolderError, match=r"none\.parquet holds no row; remove it"):
        ended_as(store, "none")
    (file, *_) = sorted((store / "cells").glob("*.parquet"))
    table = parquet.read_table(file)
    at = table.column_names.index("verdict")
    parquet.write_table(table.set_column(at, "verdict", [["maybe"]]), file)
    with pytest.raises(RunFolderError, match=r"verdict.*It was changed"):
        rows_in(store, file.stem)
    assert asked(store, "SELECT current_setting('TimeZone')").rows == (("UTC",),)

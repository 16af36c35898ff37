"""A store that is read again: what is no row of it."""

from __future__ import annotations

import pytest
from pyarrow import parquet
from sweep_rows import row

from kvparity.core.errors import RunFolderError
from kvparity.sweeps.reading import asked, ended_as, rows_in
from kvparity.sweeps.store import SweepStore


def test_what_is_no_row_of_a_store_is_said(store: SweepStore) -> None:
    store.write("some", [row()])
    file, folder = store.file("some"), store.folder
    assert rows_in(folder, "none") == ()
    with pytest.raises(RunFolderError, match=r"none\.parquet holds no row; remove it"):
        ended_as(folder, "none")
    table = parquet.read_table(file)
    at = table.column_names.index("verdict")
    parquet.write_table(table.set_column(at, "verdict", [["maybe"]]), file)
    with pytest.raises(RunFolderError, match=r"verdict.*It was changed"):
        rows_in(folder)
    assert asked(folder, "SELECT current_setting('TimeZone')").rows == (("UTC",),)

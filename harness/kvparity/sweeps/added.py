"""Runs of ``kvparity verify`` that are added to a store."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path

from kvparity.report.finished import finished
from kvparity.sweeps.store import SweepStore
from kvparity.sweeps.store_rows import CellHead, rows_of


def add(store: SweepStore, run: Path) -> bool:
    """Put a finished run into a store; False: it is there already.

    Raises:
        RunFolderError: it holds no finished run, or the store cannot be written.
    """
    report = finished(run)
    file = run / "run.json"
    cell = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    if store.ended(cell):
        return False
    ended = datetime.fromtimestamp(int(file.stat().st_mtime), timezone.utc)
    store.write(cell, rows_of(CellHead(cell=cell, run=str(run), ended=ended), report, run))
    return True

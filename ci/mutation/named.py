"""The faults of ``ci/faults``, each alone in a tree of its own: seen where its tests fail."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mutation.copying import spread
from mutation.faults import Fault, faults
from mutation.fresh import imported, passes, tree
from mutation.scope import ROOT

LIMIT_S = 300.0


def main(names: Path, results: Path, copies: int) -> None:
    """Write one line for each fault."""
    wanted = set(names.read_text().splitlines())
    results.touch()
    imported()
    with tempfile.TemporaryDirectory() as folder:

        def tried(fault: Fault) -> None:
            where = Path(folder) / str(os.getpid())
            if not where.exists():
                tree(where)
            said = _tried(fault, where)
            handle = os.open(results, os.O_WRONLY | os.O_APPEND)
            os.write(handle, f"{said} {fault.name}\n".encode())
            os.close(handle)

        chosen = [fault for fault in faults() if fault.name in wanted]
        spread(chosen, copies, tried, float("inf"))


def _tried(fault: Fault, where: Path) -> str:
    if passes(where, fault.tests, LIMIT_S) != "0":
        return "TESTS FAIL WITHOUT IT"
    fault.plant(where)
    found = passes(where, fault.tests, LIMIT_S)
    shutil.copyfile(ROOT / fault.file, where / fault.file)
    return "seen" if found == "1" else f"UNSEEN (pytest: {found})"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

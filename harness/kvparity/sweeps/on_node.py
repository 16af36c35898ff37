"""One cell on a node of Ray: what is sent there, and what comes back.

The task runs the same process as a sweep without Ray, in a folder of its own, and sends the run
folder back once it has ended.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from kvparity.core.errors import UnsupportedError
from kvparity.core.isolation.pool import message_of
from kvparity.run.identity import hash_of
from kvparity.run.on_ray import node
from kvparity.run.on_ray.sent import SentPart, SentTask
from kvparity.run.on_ray.settings import not_there
from kvparity.run.options import NODE
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.process import CellEnd, CellSettings, run_cell
from kvparity.sweeps.store import PARTS, SweepStore
from kvparity_contracts.sweep_file import files_of

LOG = "log"
"""What the process said, beside the files of the run folder, which are below ``run/``."""
_END = TypeAdapter(CellEnd)


@dataclass(frozen=True)
class SentCell:
    """A cell for a node. ``store``: its folder on the driver; ``files``: what the contract names,
    with the hash that it has there, None for a folder."""

    planned: PlannedCell
    settings: CellSettings
    store: str
    files: tuple[tuple[str, str | None], ...]


def sent(planned: PlannedCell, settings: CellSettings, store: SweepStore) -> SentTask:
    """A cell as a task."""
    paths = [path for path in files_of(planned.given) if path.exists()]
    files = tuple((str(path), hash_of(path) if path.is_file() else None) for path in paths)
    cell = SentCell(planned, settings, str(store.folder.absolute()), files)
    return SentTask(0, pickle.dumps(cell))


def serve(common: object, items: Sequence[SentTask]) -> Iterator[SentPart]:
    """In a worker of Ray: verify the one cell, and send what it left."""
    import ray

    name = ray.get_runtime_context().get_node_id()
    os.environ[NODE] = name  # for the processes of the cell
    (item,) = items
    yield verified(pickle.loads(item.call), name)


def verified(cell: SentCell, node_id: str) -> SentPart:
    """What a cell came to here; an error where this node is not as the driver."""
    if (wrong := _other(cell)) is not None:
        words = f"node {socket.gethostname()} ({node_id[:8]}) {wrong}"
        return SentPart(error=message_of(UnsupportedError(words)))
    with node.scratch() as folder:
        here = SweepStore(folder / "store")
        for part in PARTS:
            (here.folder / part).mkdir(parents=True)
        end = run_cell(cell.planned, here, cell.settings, None)
        answer = _END.dump_python(end, mode="json")
        return SentPart(files=tuple(_left(cell, here)), answers=((0, answer),))


def ended(part: SentPart) -> CellEnd:
    """How the process ended there."""
    ((_, answer),) = part.answers
    return _END.validate_python(answer)


def _other(cell: SentCell) -> str | None:
    """What this node lacks, or has otherwise, or None."""
    python = sys.executable if cell.planned.python is None else str(cell.planned.python)
    if not Path(python).is_file():
        return f"has no interpreter {python}: with --ray it must exist on every node"
    if (wrong := not_there([path for path, _ in cell.files])) is not None:
        return wrong
    for path, digest in cell.files:
        if digest is not None and hash_of(Path(path)) != digest:
            return f"has a different {path} than the driver: one sweep cannot mix sources"
    return None


def _left(cell: SentCell, here: SweepStore) -> Iterator[tuple[str, bytes]]:
    """The log and the run folder; what they say of this folder is said of the driver's."""
    folder = here.run(cell.planned.id)
    log = here.log(cell.planned.id)
    found = [(LOG, log)] + [
        (str(Path("run") / path.relative_to(folder)), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".part" not in path.name
    ]
    for name, path in found:
        data = path.read_bytes()
        if path.suffix in (".json", ".log"):
            data = data.replace(str(here.folder).encode(), cell.store.encode())
        yield name, data

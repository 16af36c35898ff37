"""What the process of a subject does on a node: it calls the functions of every worker."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from kvparity.core.environment import environment, overridden
from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.run import worker
from kvparity.run.on_ray.sent import NodeFound
from kvparity.run.worker import Job
from kvparity.subjects.pair.callables import instead
from kvparity.tiles import contract as tiles
from kvparity_contracts.json_types import JsonValue
from kvparity_kernels import runtime

_stay = ExitStack()
_job: Job | None = None


def begin(job: bytes, folder: str, sources: dict[str, str]) -> None:
    """The first task of the process. ``folder``: of this task, on this node. ``sources``: by path
    on the driver, the copy here; they stand in for files of the same path.
    """
    global _job
    given: Job = pickle.loads(job)
    _job = replace(given, folder=Path(folder))
    if sources:
        copies = {Path(path): Path(copy) for path, copy in sources.items()}
        folders = _folders(sources, _job.base)
        sys.path += sorted(map(str, folders.values()))
        _stay.enter_context(instead(copies, folders))  # as long as the process
    if (forced := overridden(_job.device)) is not None:
        raise UnsupportedError(forced)
    try:
        runtime.select(_job.device)
    except RuntimeError as error:
        raise UnsupportedError(str(error)) from error
    if _job.device != "cpu" and not torch.cuda.is_available():
        raise SubjectError(
            f"device {_job.device} was asked for, and torch {torch.__version__} sees no CUDA "
            "device on the node that Ray chose; nothing runs on a CPU instead"
        )
    worker.start()


def _folders(sources: Mapping[str, str], base: Path) -> dict[Path, Path]:
    """By folder of the driver, where its copies lie here: those of ``sources``, and ``base``, below
    which the packages are."""
    path, copy = next(iter(sources.items()))
    top = Path(copy.removesuffix(path))
    return {
        folder: top / folder.relative_to(folder.anchor)
        for folder in (base, *(Path(each).parent for each in sources))
    }


def look() -> NodeFound:
    """What is here."""
    job = _here()
    device = torch.device(job.device)
    uuid = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
    return {
        "environment": environment(device, job.contract.numerics.device).document(),
        "uuid": uuid,
        "tiles": tiles.in_force(job.contract, device),
    }


def checked_tiles(job: Job) -> dict[str, object]:
    """The tiles that the contract relies on, checked on this node."""
    return tiles.checked(job.contract, torch.device(job.device)).document()


def looked(job: Job) -> NodeFound:
    """:func:`look` as a task of its own."""
    return look()


def call(text: bytes) -> JsonValue:
    """Call a function of a worker."""
    function, arguments = pickle.loads(text)
    found: JsonValue = function(_here(), *arguments)
    return found


def _here() -> Job:
    if _job is None:
        raise RuntimeError("begin() comes first")
    return _job

"""Compile kernels for GPUs that need not be here, in processes of their own, and keep the result.

A process has interpreted or compiled kernels for life, so whoever audits never imports a kernel.
Artefacts are kept by content: versions, kernel sources and the request decide their place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import kvparity
import kvparity_kernels
from kvparity.core.machine import cores
from kvparity.relations.audit.request import AuditError, Constant, Request

_FORMAT = "1"  # of the cache
_VARIABLE = "KVPARITY_AUDIT_CACHE"
_TIMEOUT_S = 1800
_LOOK_S = 1.0
_Share = list[tuple[Path, Request]]
CompileProgress = Callable[[int, int], None]
"""How many are compiled, of how many."""


def silent(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Artefact:
    """One compiled kernel: what it was compiled from, and the three texts of it.

    ``strict_sass`` is the SASS with contraction forbidden, where ``fusion`` allows it.
    """

    name: str
    arch: str
    constants: dict[str, Constant]
    dtypes: dict[str, str]
    num_warps: int
    num_stages: int
    fusion: bool
    triton: str
    ptxas: str
    hash: str
    ttgir: str
    ptx: str
    sass: str
    strict_sass: str | None = None


def compile_all(
    requests: Sequence[Request],
    *,
    folder: Path | None = None,
    jobs: int | None = None,
    progress: CompileProgress = silent,
) -> list[list[Artefact]]:
    """The kernels of every request, in order; equal requests are compiled once.

    ``folder``: where artefacts are kept (default: ``$KVPARITY_AUDIT_CACHE``, else the user's cache
    folder). ``jobs``: processes (default: one per core). ``progress`` is told now and then how many
    of those that are not kept are compiled. Raises ``AuditError`` if a kernel does not compile or
    Triton is not there.
    """
    root = folder or cache_folder()
    places = [root / _key(request) for request in requests]
    wanted = dict(zip(places, requests, strict=True))
    if _missing(wanted):
        with _alone(root):
            # Whoever was first may have compiled the same.
            if missing := _missing(wanted):
                _compile(missing, root, jobs or cores().count, progress)
    return [_read(place, request) for place, request in zip(places, requests, strict=True)]


def cache_folder() -> Path:
    """Where artefacts are kept if nobody says otherwise."""
    if chosen := os.environ.get(_VARIABLE):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "kvparity", "audit")


def _missing(wanted: dict[Path, Request]) -> dict[Path, Request]:
    return {
        place: request for place, request in wanted.items() if not (place / "record.json").is_file()
    }


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time compile into a folder; each takes all cores."""
    import fcntl  # there is no Triton where there is no fcntl

    try:
        root.mkdir(parents=True, exist_ok=True)
        opened = (root / "lock").open("a")  # nothing is written into it
    except OSError as error:
        words = f"{root} cannot be written ({error.strerror}); set {_VARIABLE} to a folder of yours"
        raise AuditError(words) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            words = "locks do not work in %s (%s): others may compile the same meanwhile"
            logging.getLogger("kvparity").warning(words, root, error.strerror)
        yield


def _compile(
    missing: dict[Path, Request], root: Path, jobs: int, progress: CompileProgress
) -> None:
    items = list(missing.items())
    shares = [share for i in range(jobs) if (share := items[i::jobs])]
    errors: list[str] = []
    latest = time.monotonic() + _TIMEOUT_S
    with ExitStack() as stack:
        running = [_start(share, root, stack) for share in shares]
        for (process, output, errs), share in zip(running, shares, strict=True):
            while process.poll() is None:
                if time.monotonic() > latest:
                    raise AuditError(f"compiling took longer than {_TIMEOUT_S} s")
                progress(len(missing) - len(_missing(missing)), len(missing))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=_LOOK_S)
            errors += _errors(share, output, errs, process.returncode)
    if errors:
        raise AuditError("\n".join(errors))


def _errors(share: _Share, output: IO[str], errs: IO[str], code: int) -> list[str]:
    output.seek(0)
    answers = [json.loads(line)["error"] for line in output if line.startswith("{")]
    found = [
        f"{request.side} does not compile for {request.arch}: {answer}"
        for (_, request), answer in zip(share, answers, strict=False)
        if answer is not None
    ]
    if len(answers) < len(share):
        errs.seek(0)
        tail = "\n".join(errs.read().splitlines()[-8:])
        found.append(f"the compiling process ended with {code}:\n{tail}")
    return found


def _start(
    share: _Share, root: Path, stack: ExitStack
) -> tuple[subprocess.Popen[bytes], IO[str], IO[str]]:
    """Start compiling; when ``stack`` closes, the process is gone and its files are closed."""
    roots = [str(Path(each.__path__[0]).parent) for each in (kvparity, kvparity_kernels)]
    known = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(root / "triton"),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*known, *roots])),
    }
    # Files, not pipes: nobody has to read while others compile.
    output = stack.enter_context(TemporaryFile("w+"))  # noqa: SIM115 - the stack is its context
    errs = stack.enter_context(TemporaryFile("w+"))  # noqa: SIM115 - so it is
    with TemporaryFile("w+") as given:
        for place, request in share:
            print(json.dumps({"request": request.as_json(), "folder": str(place)}), file=given)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "kvparity.relations.audit.worker"],
            env=environment,
            stdin=given,
            stdout=output,
            stderr=errs,
        )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process, output, errs


def _read(place: Path, request: Request) -> list[Artefact]:
    found = []
    for facts in json.loads((place / "record.json").read_text()):
        texts = {
            kind.replace(".", "_"): (place / f"{facts['name']}.{kind}").read_text()
            for kind in ("ttgir", "ptx", "sass", "strict.sass")
            if (place / f"{facts['name']}.{kind}").is_file()
        }
        found.append(Artefact(arch=request.arch, **(facts | texts)))
    return found


def _key(request: Request) -> str:
    source = None if request.source is None else _digest(request.source.read_bytes())
    facts = {
        "request": replace(request, source=None).as_json(),
        "source": source,
        "kernels": _sources(),
        "triton": _triton(),
        "format": _FORMAT,
        "tools": {k: v for k, v in os.environ.items() if k.startswith("TRITON_") and "PTXAS" in k},
    }
    return _digest(json.dumps(facts, sort_keys=True).encode())[:24]


@cache
def _sources() -> str:
    texts = [p.read_bytes() for p in sorted(Path(kvparity_kernels.__path__[0]).rglob("*.py"))]
    return _digest(b"\0".join(texts))


@cache
def _triton() -> str:
    for name in ("triton", "pytorch-triton"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise AuditError("Triton is not installed; the audit needs its compiler: pip install triton")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

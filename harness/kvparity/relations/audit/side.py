"""Requests compiled and read: from a list of pairs to a list of comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.compile import Artefact, CompileProgress, compile_all, silent
from kvparity.relations.audit.request import AuditError, Request
from kvparity.relations.audit.signature import sign
from kvparity.relations.audit.views import AuditSide

_KERNELS = {"prefill": 1, "decode": 2}


def label(request: Request) -> str:
    """``prefill``, or ``decode, pages of 16``."""
    page = request.shape.page
    return request.side + (f", pages of {page}" if page else "")


def read_side(request: Request, kernels: Sequence[Artefact]) -> AuditSide:
    """The signatures of one compiled request.

    Raises ``AuditError`` if it launched other kernels than it should, or one cannot be read.
    """
    if len(kernels) != _KERNELS[request.side]:
        names = ", ".join(each.name for each in kernels)
        raise AuditError(
            f"{request.side} launches {names or 'nothing'}; expected "
            f"{_KERNELS[request.side]} kernels"
        )
    try:
        return AuditSide(label(request), *(sign(each) for each in kernels))
    except ValueError as error:
        raise AuditError(f"{request.side} for {request.arch} is not readable: {error}") from error


def read_all(
    requests: Iterable[Request],
    *,
    folder: Path | None = None,
    jobs: int | None = None,
    progress: CompileProgress = silent,
) -> dict[Request, AuditSide]:
    """Every request, compiled and read. Raises ``AuditError``."""
    wanted = list(dict.fromkeys(requests))
    compiled = compile_all(wanted, folder=folder, jobs=jobs, progress=progress)
    return {
        request: read_side(request, kernels)
        for request, kernels in zip(wanted, compiled, strict=True)
    }


def audit(
    pairs: Sequence[tuple[Request, Request]],
    *,
    folder: Path | None = None,
    jobs: int | None = None,
) -> list[KernelComparison]:
    """Compile both requests of every pair and compare them, in order. Raises ``AuditError``."""
    sides = read_all(chain.from_iterable(pairs), folder=folder, jobs=jobs)
    return [compare(sides[left], sides[right]) for left, right in pairs]

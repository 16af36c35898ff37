"""What a cell came to: what its evidence says that ran must be what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from packaging.version import InvalidVersion, Version

from kvparity.report.document import RunReport
from kvparity.sweeps.planned import PlannedCell
from kvparity.sweeps.store_rows import hash_of_sources


def other_than_asked(planned: PlannedCell, report: RunReport) -> str | None:
    """What ran instead of what the cell asks for, or None.

    Versions, device, seed and format are those of the evidence, never those of the request.
    """
    return next(_differences(planned, report), None)


def _differences(planned: PlannedCell, report: RunReport) -> Iterator[str]:
    environment, cell = report.environment, planned.cell
    if report.contract.sha256 != planned.given.sha256:
        yield "its evidence is of another contract"
    sources = report.contract.sources
    if sources is not None and hash_of_sources(sources) != planned.sources:
        yield "its source files, prompts or recordings changed after the sweep was planned"
    yield from _others(planned, {**environment.versions, "python": environment.python})
    if environment.device != cell.device:
        yield f"asked for device {cell.device}, but it ran on {environment.device}"
    if report.contract.seed != planned.seed:
        yield f"asked for seed {planned.seed}, but {report.contract.seed} ran"
    if cell.dtype is None:
        return
    ran = {case.dtype for check in report.checks for case in check.cases} | set(_used(report))
    if others := sorted(ran - {cell.dtype}):
        yield f"asked for {cell.dtype}, but {', '.join(others)} ran"


def other_releases(planned: PlannedCell, installed: Mapping[str, str | None]) -> str | None:
    """Which release its environment has instead of one that was asked for, or None."""
    return next(_others(planned, installed, "is installed"), None)


def _others(
    planned: PlannedCell, installed: Mapping[str, str | None], does: str = "ran"
) -> Iterator[str]:
    for package, asked in planned.environment.packages.items():
        if not _same(asked, found := installed.get(package)):
            yield f"asked for {package} {asked}, but {found or 'none'} {does}"


def _used(report: RunReport) -> Iterator[str]:
    """The format that the subject says it was loaded in, where it says so."""
    for key in ("dtype", "execution"):
        if isinstance(found := report.subject.get(key), str):
            yield found


def _same(asked: str, found: str | None) -> bool:
    """Whether two releases are one; a local part (``+cpu``) counts where it is asked for."""
    if found is None:
        return False
    try:
        wanted, had = Version(asked), Version(found)
    except InvalidVersion:
        return asked == found
    return wanted == had or str(wanted) == had.public

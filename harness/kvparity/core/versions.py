"""Which installed versions are outside of those that kvparity was tested with.

Imports no library that is looked at.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

import kvparity
from kvparity_kernels.versions import TESTED as TESTED
from kvparity_kernels.versions import VersionRange as VersionRange

_DECIDING = ("torch", "triton", "numpy", "transformers", "peft", "flashinfer-python")


@dataclass(frozen=True)
class Outside:
    """A library whose version is outside of the tested range."""

    library: str
    version: str
    tested: VersionRange

    def __str__(self) -> str:
        return f"{self.library} {self.version} (tested: {self.tested})"


def outside(found: Mapping[str, str | None]) -> tuple[Outside, ...]:
    """Those of ``found`` (library to version) that are outside of the range, in table order.

    A library that is missing (None) or not in the table is left out; a version that begins with no
    number is outside.
    """
    return tuple(
        Outside(library, version, tested)
        for library, tested in TESTED.items()
        if (version := found.get(library)) is not None and not _within(version, tested)
    )


def _within(version: str, tested: VersionRange) -> bool:
    low, high, found = map(_numbers, (tested.lowest, tested.highest, version))
    return bool(found) and found[: len(low)] >= low and found[: len(high)] <= high


def _numbers(version: str) -> tuple[int, ...]:
    begin = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, begin[0].split("."))) if begin else ()


def installed() -> dict[str, str | None]:
    """The version of each library of the table as it is installed here, None where it is not."""
    return {
        library: platform.python_version() if library == "python" else version_of(library)
        for library in TESTED
    }


def versions() -> dict[str, str | None]:
    """Installed version of every package that can decide bits, None where it is missing."""
    # kvparity's own from the code that runs: a checkout on the path has no metadata, or stale one.
    own: dict[str, str | None] = {"kvparity": kvparity.__version__}
    return own | {name: version_of(name) for name in _DECIDING}


def version_of(package: str) -> str | None:
    """The installed version, None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def here() -> str | None:
    """What of :func:`installed` is outside, in one line for a report, or None."""
    return ", ".join(map(str, outside(installed()))) or None


def lines(report: Mapping[str, object]) -> list[str]:
    """One line of a terminal report, or none.

    ``report`` has what :func:`here` gave under ``outside_tested``; documents of older versions
    have nothing there.
    """
    said = report.get("outside_tested")
    return [f"  outside of the tested versions: {said}"] if said else []

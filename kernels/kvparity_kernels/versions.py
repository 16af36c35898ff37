"""The versions that kvparity was tested with. Imports nothing but the standard library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class VersionRange:
    """The lowest and the highest version of a library that the tests were run with.

    Versions are compared as far as the bound goes: 5.24.1 is not above 5.24.
    """

    lowest: str
    highest: str

    def __str__(self) -> str:
        return self.lowest if self.lowest == self.highest else f"{self.lowest} to {self.highest}"


TESTED: Mapping[str, VersionRange] = {
    "python": VersionRange("3.10", "3.13"),
    "torch": VersionRange("2.13", "2.14"),
    "triton": VersionRange("3.6", "3.9"),
    "transformers": VersionRange("4.57", "5.24"),
    "numpy": VersionRange("2.2", "2.5"),
    "pydantic": VersionRange("2.14", "2.14"),
}

"""What is wrong with a contract file, with the place where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvparity_contracts.base import Fault, KeyPath
from kvparity_contracts.plain import plain


@dataclass(frozen=True)
class Problem:
    """One fault at one place: ``line`` and ``col`` count from 1; line 0 means the whole file."""

    file: str
    line: int
    col: int
    key: str
    message: str
    expected: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        """``file:line:col: key: message, expected ... (did you mean ...?)``."""
        key = f"{plain(self.key)}: " if self.key else ""
        what = Fault((), plain(self.message), plain(self.expected), plain(self.suggestion))
        place = f"{self.file}:{self.line}:{self.col}" if self.line else self.file
        return f"{plain(place)}: {key}{what}"


class ContractError(Exception):
    """A contract that cannot be used. ``problems`` holds every reason that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: KeyPath) -> str:
    """A key path as text: ``checks[0].paths[2]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text

"""The contracts that come with the project, by name."""

from __future__ import annotations

from pathlib import Path

from kvparity_contracts.base import closest
from kvparity_contracts.problems import ContractError, Problem

FOLDER = Path(__file__).parent / "library"


def names() -> list[str]:
    """Names of all contracts in the library."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name_or_path: str | Path) -> Path:
    """The file of a contract: a path as it is, a bare name from the library.

    A name has no folder and no suffix; a file of that name in the working folder goes first.

    Raises:
        ContractError: a bare name that is neither a file nor in the library.
    """
    text, path = str(name_or_path), Path(name_or_path)
    if path.suffix or path.name != text or path.is_file():
        return path
    if text in names():
        return FOLDER / f"{text}.yaml"
    message = f"there is no file and no contract called {text!r}"
    expected = f"a file or one of {', '.join(names())}"
    raise ContractError([Problem(text, 0, 0, "", message, expected, closest(text, names()))])

"""From a file to a contract, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from kvparity_contracts.base import Fault, KeyPath, show
from kvparity_contracts.contract import Contract
from kvparity_contracts.explain import explain
from kvparity_contracts.problems import ContractError, Problem, dotted
from kvparity_contracts.yamltext import Place, Text, read

BIGGEST = 1_000_000
"""Bytes. A contract is a page of text; anything bigger is some other file."""


@dataclass(frozen=True)
class LoadedContract:
    """A valid contract and where it came from. ``sha256`` is that of the file's bytes."""

    contract: Contract
    path: Path
    sha256: str
    file: str
    text: Text = field(repr=False)

    @property
    def base(self) -> Path:
        """The folder that relative paths in the contract start from."""
        return self.path.parent

    def place(self, path: KeyPath) -> Place:
        """Line and column, from 1, of the value at a key path."""
        return self.text.place(path)


def load(path: str | Path) -> LoadedContract:
    """Read and validate one contract file.

    Raises:
        ContractError: with every problem that was found, each with its line and column.
    """
    file = str(path)
    raw = _bytes(Path(path), file)
    try:
        source = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        col = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"found the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        raise ContractError([Problem(file, line, col, "", message, "UTF-8 text")]) from None
    contract, text = _parse(source, file)
    return LoadedContract(contract, Path(path), hashlib.sha256(raw).hexdigest(), file, text)


def _bytes(path: Path, file: str) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > BIGGEST:
            message = f"found a file of {path.stat().st_size} bytes"
            raise ContractError([Problem(file, 1, 1, "", message, f"at most {BIGGEST}")])
        return path.read_bytes()
    except FileNotFoundError:
        message = "there is no such file"
    except IsADirectoryError:
        message = "this is a folder"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise ContractError([Problem(file, 1, 1, "", message, "a contract file")])


def _parse(source: str, file: str) -> tuple[Contract, Text]:
    text = read(source)
    problems = [_problem(file, text, place, fault) for place, fault in text.faults]
    told = {place for place, _ in text.faults}
    if not problems and not isinstance(text.data, dict):
        empty = "an empty file" if text.data is None else show(text.data)
        expected = "a contract: version, name, subject, numerics, workloads, checks"
        problems = [Problem(file, 1, 1, "", f"found {empty}", expected)]
    if isinstance(text.data, dict):
        try:
            contract = Contract.model_validate(text.data)
        except ValidationError as error:
            found = [(text.place(fault.at, key=key), fault) for fault, key in explain(error)]
            problems += [_problem(file, text, *each) for each in found if each[0] not in told]
        else:
            if not problems:
                return contract, text
    raise ContractError(in_order(problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sorted by place; what stands at the same place with the same words is told once."""
    return sorted(dict.fromkeys(problems), key=lambda each: (each.line, each.col))


def _problem(file: str, text: Text, place: Place, fault: Fault) -> Problem:
    return Problem(
        file, *place, dotted(text.shown(fault.at)), fault.message, fault.expected, fault.suggestion
    )

"""From a file to a contract, or to everything that is wrong with it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kvparity_contracts.advice import honest
from kvparity_contracts.base import Fault, KeyPath, Model, show
from kvparity_contracts.contract import Contract
from kvparity_contracts.explain import explain
from kvparity_contracts.problems import ContractError, Problem, dotted
from kvparity_contracts.prompt_files import put_in
from kvparity_contracts.yamltext import Data, Text, read
from kvparity_contracts.yamlwords import Place

BIGGEST = 1_000_000
"""Bytes. A contract is a page of text; anything bigger is some other file."""
KINDS = {
    stat.S_IFDIR: "this is a folder",
    stat.S_IFIFO: "this is a pipe",
    stat.S_IFCHR: "this is a device",
    stat.S_IFBLK: "this is a device",
    stat.S_IFSOCK: "this is a socket",
}
"""What is no file, and is not read: it may have no end."""
MOST_PROBLEMS = 50
"""Problems reported for one file; the others are counted."""
PARTS = "a contract: version, name, subject, numerics, workloads, checks"
Advice = Callable[[dict[str, Data], Fault, Sequence[tuple[Fault, bool]]], Fault]
"""What is said in place of a fault, by the whole file and all its faults."""
Parsed = TypeVar("Parsed", bound=Model)


@dataclass(frozen=True)
class LoadedContract:
    """A valid contract and where it came from. ``sha256`` is that of the file's bytes.

    ``prompt_files``: whose prompts it holds (:mod:`kvparity_contracts.prompt_files`).
    """

    contract: Contract
    path: Path
    sha256: str
    file: str
    text: Text = field(repr=False)
    raw: bytes = field(repr=False)
    """The file's bytes."""
    prompt_files: tuple[Path, ...] = ()

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
    return load_bytes(raw_bytes(Path(path), "a contract file", str(path)), path)


def load_bytes(
    raw: bytes, path: str | Path, copies: Mapping[Path, Path] | None = None
) -> LoadedContract:
    """Validate what a contract file at ``path`` holds, or held.

    ``copies``: what is read in place of a file of prompts.

    Raises:
        ContractError: see :func:`load`.
    """
    file = str(path)
    text = read(decoded(raw, file))
    prompts = put_in(text, Path(path).parent, copies or {})
    subject = text.data.get("subject") if isinstance(text.data, dict) else None
    kind = subject.get("kind") if isinstance(subject, dict) else None
    contract = parsed(text, file, Contract, PARTS, context=kind, advice=honest)
    digest = hashlib.sha256(raw).hexdigest()
    return LoadedContract(contract, Path(path), digest, file, text, raw, prompts)


def decoded(raw: bytes, file: str) -> str:
    """The text of a file.

    Raises:
        ContractError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        col = error.start - raw.rfind(b"\n", 0, error.start)
        message = f"found the byte 0x{raw[error.start]:02x}, which is not UTF-8"
        raise ContractError([Problem(file, line, col, "", message, "UTF-8 text")]) from None


def raw_bytes(path: Path, expected: str, file: str) -> bytes:
    """What a file holds, called ``file`` in messages; ``expected``: what it should be, in words.

    Raises:
        ContractError: it is no file, too big, or cannot be read.
    """
    try:
        # Nobody may write to the other end of a pipe: opening must not wait for one.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            about = os.fstat(handle)
            kind = KINDS.get(stat.S_IFMT(about.st_mode))
            raw = b"" if kind else _read(handle)
        finally:
            os.close(handle)
        if kind is None and len(raw) <= BIGGEST:
            return raw
        message = kind or f"found a file of {max(about.st_size, len(raw))} bytes"
        expected = expected if kind else f"at most {BIGGEST}"
    except FileNotFoundError:
        message = "there is no such file"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise ContractError([Problem(file, 1, 1, "", message, expected)])


def _read(handle: int) -> bytes:
    """All bytes, or one more than a contract may have."""
    raw = b""
    while len(raw) <= BIGGEST and (more := os.read(handle, BIGGEST + 1 - len(raw))):
        raw += more
    return raw


def parsed(
    text: Text,
    file: str,
    model: type[Parsed],
    whole: str,
    *,
    context: object = None,
    advice: Advice = lambda data, fault, told: fault,
) -> Parsed:
    """What a file holds as a ``model``; ``whole``: what it should be, with its parts.

    Raises:
        ContractError: every problem that was found, each with its line and column.
    """
    problems = [problem(file, text, place, fault) for place, fault in text.faults]
    told = {place for place, _ in text.faults}
    if not problems and not isinstance(text.data, dict):
        empty = "an empty file" if text.data is None else show(text.data)
        expected = whole
        if isinstance(text.data, str) and ":" in text.data:
            expected += "; and a space behind the colon of a key"
        problems = [Problem(file, 1, 1, "", f"found {empty}", expected)]
    if isinstance(text.data, dict):
        try:
            found = model.model_validate(text.data, context=context)
        except ValidationError as error:
            told_of = [
                (replace(fault, at=text.shown(fault.at)), key)
                for fault, key in explain(error, model)
            ]
            placed = [
                (text.place(fault.at, key=key), advice(text.data, fault, told_of))
                for fault, key in told_of
            ]
            problems += [problem(file, text, *each) for each in placed if each[0] not in told]
        else:
            if not problems:
                return found
    raise ContractError(in_order(problems))


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sorted by place; what stands at the same place with the same words is reported once.

    Of very many, the first ones: the others would hide them.
    """
    found = sorted(dict.fromkeys(problems), key=lambda each: (each.line, each.col))
    if len(found) <= MOST_PROBLEMS:
        return found
    told, left = found[:MOST_PROBLEMS], found[MOST_PROBLEMS:]
    more = Problem(left[0].file, left[0].line, left[0].col, "", f"{len(left)} more problems")
    return [*told, more]


def problem(file: str, text: Text, place: Place, fault: Fault) -> Problem:
    """A fault of a file as a problem at its place."""
    return Problem(
        file, *place, dotted(text.shown(fault.at)), fault.message, fault.expected, fault.suggestion
    )

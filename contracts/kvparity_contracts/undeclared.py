"""What a pair seems to compute and a contract does not declare: told, as far as names tell it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kvparity_contracts.base import KeyPath
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.subjects import Attention

BIGGEST = 4_000_000
"""Bytes of a Python file that is looked into."""
SPOKEN: Mapping[str, str] = {
    "alibi": "ALiBi slopes",
    "slope": "ALiBi slopes",
    "slopes": "ALiBi slopes",
    "sink": "sinks",
    "sinks": "sinks",
}
"""Parts of names, and what they stand for."""
KEYS: Mapping[str, str] = {"sinks": "sinks", "ALiBi slopes": "bias"}
"""The key that declares it."""
_FLASH = {"softmax_scale", "alibi_slopes"}
_SIGNED = "; a function called as flash-attention's is declared by subject.signature: flash-attn"
_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def undeclared(loaded: LoadedContract) -> Iterator[tuple[KeyPath, str]]:
    """One warning for each thing that the functions of a pair name, and float64 knows nothing of.

    Nothing is imported: the functions, and those of the same file that they name, are read. Of a
    pair that is named by its module nothing is said, nor of one with another project's signature,
    which has its keywords whether they are used or not.
    """
    subject = loaded.contract.subject
    if not isinstance(subject, Attention) or subject.signature is not None:
        return
    told: set[str] = set()
    for key in ("prefill", "decode"):
        target, _, function = getattr(subject, key).rpartition(":")
        if not target.endswith(".py"):
            continue
        for what, (name, line) in _named(loaded.base / target, function).items():
            if what not in told and getattr(subject, KEYS[what]) is None:
                told.add(what)
                yield (
                    ("subject", key),
                    f"{target}:{line} names {what} ({name}), which this contract does not declare "
                    f"(subject.{KEYS[what]}): float64 counts none, so an accuracy check differs by "
                    "what they add, and without one nothing shows whether they are right"
                    + _SIGNED
                    * _as_flash_attn(loaded.base / target, function),
                )


def _as_flash_attn(file: Path, function: str) -> bool:
    """Whether a function has flash-attention's keywords."""
    return any(
        isinstance(node, _Function)
        and node.name == function
        and {each.arg for each in (*node.args.args, *node.args.kwonlyargs)} >= _FLASH
        for node in ast.parse(file.read_bytes()).body
    )


def _named(file: Path, function: str) -> dict[str, tuple[str, int]]:
    """What a function and its helpers name: the name and its line, by what it stands for."""
    try:
        if not file.is_file() or file.stat().st_size > BIGGEST:
            return {}
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return {}  # told elsewhere
    functions = {node.name: node for node in tree.body if isinstance(node, _Function)}
    found: dict[str, tuple[str, int]] = {}
    waiting, seen = [function], {function}
    while waiting:
        node = functions.get(waiting.pop())
        for name, line in _names(node) if node is not None else ():
            for part in re.split(r"[_\d]+", name.lower()):
                if part in SPOKEN:
                    found.setdefault(SPOKEN[part], (name, line))
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return found


def _names(node: ast.AST) -> Iterator[tuple[str, int]]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id, each.lineno
        elif isinstance(each, ast.arg):
            yield each.arg, each.lineno
        elif isinstance(each, _Function):
            yield each.name, each.lineno

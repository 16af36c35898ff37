"""Files and folders that a contract names: whether they are there, without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvparity_contracts.base import Fault, KeyPath, closest
from kvparity_contracts.checkpoint_ranks import rank_faults
from kvparity_contracts.loader import LoadedContract, load, problem
from kvparity_contracts.problems import ContractError, Problem
from kvparity_contracts.served import ServerSubject
from kvparity_contracts.sides import ModelSideSpec, RecordedSide, Sides
from kvparity_contracts.subjects import Attention

BIGGEST = 4_000_000
"""Bytes of a Python file that is looked into; a bigger one is left to the import."""
DYNAMIC = ("exec", "globals", "setattr", "vars", "__getattr__")
"""Names by which a module may define others at run time: nothing is said of such a module."""
INNER = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip
"""What has names of its own, which a module does not offer."""


def load_whole(path: str | Path) -> LoadedContract:
    """The contract of a file, whose subject's files are there, and can be cut as it asks.

    Raises:
        ContractError: see ``load``; or a file, a function or a folder is missing, or a checkpoint
            has heads that ranks cannot share evenly.
    """
    loaded = load(path)
    problems = absent(loaded)
    if problems:
        raise ContractError(problems)
    return loaded


def absent(loaded: LoadedContract) -> list[Problem]:
    """What the subject names and is not there, or not so, each with its line and column."""
    return [
        problem(loaded.file, loaded.text, loaded.place(each.at), each) for each in _faults(loaded)
    ]


def _faults(loaded: LoadedContract) -> Iterator[Fault]:
    subject = loaded.contract.subject
    if isinstance(subject, Attention):
        for key in ("prefill", "decode"):
            yield from _function(loaded.base, key, getattr(subject, key))
    elif isinstance(subject, Sides):
        yield from _sides(loaded.base, subject)
    elif not isinstance(subject, ServerSubject) and subject.checkpoint is not None:
        yield from _checkpoint(loaded.base, ("subject", "checkpoint"), subject.checkpoint)
        yield from rank_faults(loaded)


def _sides(base: Path, sides: Sides) -> Iterator[Fault]:
    if sides.tokens is not None:
        yield from _recording(base, ("subject", "tokens"), sides.tokens)
    for key, side in (("rollout", sides.rollout), ("trainer", sides.trainer)):
        if isinstance(side, ModelSideSpec):
            yield from _checkpoint(base, ("subject", key, "checkpoint"), side.checkpoint)
        elif isinstance(side, RecordedSide):
            yield from _recording(base, ("subject", key, "file"), side.file)


def _recording(base: Path, at: KeyPath, name: str) -> Iterator[Fault]:
    if not (file := base / name).is_file():
        beside = [each.name for each in _beside(file.parent, "*") if each.is_file()]
        near = closest(file.name, beside)
        expected = "a file of rollouts; a relative path begins in the folder of the contract"
        found = str(Path(name).with_name(near)) if near else ""
        yield Fault(at, f"there is no file {file}", expected, found)


def _function(base: Path, key: str, name: str) -> Iterator[Fault]:
    target, _, function = name.rpartition(":")
    if not target.endswith(".py"):
        return  # a module: where it lies is known when it is imported
    at, file = ("subject", key), base / target
    expected = "a Python file; a relative path begins in the folder of the contract"
    if not file.is_file():
        near = closest(file.name, [each.name for each in _beside(file.parent, "*.py")])
        found = f"{Path(target).with_name(near)}:{function}" if near else ""
        yield Fault(at, f"found {name!r}, but there is no file {file}", expected, found)
        return
    try:
        tree = ast.parse(file.read_bytes()) if file.stat().st_size <= BIGGEST else None
        # Names of inner functions count, too: what is refused must be wrong for certain.
        defined = None if tree is None else _bound(ast.walk(tree))
        offers = None if tree is None else _bound(_outer(tree))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else error
        yield Fault(at, f"found {name!r}, but {file}{line} is not Python: {why}", expected)
        return
    if defined is not None and function not in defined:
        offered = sorted(each for each in offers or () if not each.startswith("_"))
        near = closest(function, offered)
        yield Fault(
            at,
            f"found {name!r}, but {file} has no function {function!r}",
            f"a function of this file; it offers {', '.join(offered[:12]) or 'none'}",
            f"{target}:{near}" if near else "",
        )


def _outer(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that are not inside of a function, a class or a comprehension."""
    left = [tree]  # a list, as in ast.walk: what is nested deeply needs no deep stack
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, INNER):
            left.extend(ast.iter_child_nodes(node))


def _bound(nodes: Iterable[ast.AST]) -> set[str] | None:
    """The names that these nodes bind; None where only the import can tell."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            if node.name == "*":
                return None
            names.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.Name):
            if node.id in DYNAMIC:
                return None
            if isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return None if names & set(DYNAMIC) else names


def _checkpoint(base: Path, at: KeyPath, name: str) -> Iterator[Fault]:
    folder = base / name
    expected = "a folder with config.json and safetensors; a relative path begins in that of the "
    expected += "contract, and nothing is downloaded"
    try:
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                yield Fault(at, f"the folder {folder} holds no config.json", expected)
            return
        message = f"{folder} is a file" if folder.exists() else f"there is no folder {folder}"
    except (OSError, ValueError):
        message = f"{folder} cannot be looked at"
    near = closest(folder.name, [each.name for each in _beside(folder.parent, "*/")])
    yield Fault(at, message, expected, str(Path(name).with_name(near)) if near else "")


def _beside(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))[:500]
    except (OSError, ValueError):
        return []

"""All small changes of one file, each with the text of the file that has it."""

from __future__ import annotations

import ast
import difflib
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import parso
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

from mutation.faults import planted
from mutation.operators import OPERATORS, Place, SyntaxNode
from mutation.scope import ROOT, Stretch, unchanged

FAULT = "fault"
"""The operator of a fault of ``ci/faults``; its key is its name."""
_RULES = Path(__file__).with_name("operators.py").read_text()
_NAMED = {type(operator).__name__: operator for operator in OPERATORS}


@dataclass(frozen=True)
class Mutant:
    """One change. ``owner``: the function or method that has it, or "" for the module's own level.

    ``key`` stays the same while the text of the owner does, wherever in the file it moves, and the
    operators do.
    """

    key: str
    file: str
    line: int
    owner: str
    operator: str
    occurrence: int
    inside: bool
    """In the body of a function that is not a kernel: its code can be put into a live process."""

    def text(self) -> str:
        """The whole file with the change."""
        if self.operator == FAULT:
            return planted(self.key)
        found = mutate_code(source(self.file), _NAMED[self.operator], self.occurrence)
        assert isinstance(found, str), self
        return found

    def change(self) -> tuple[str, str]:
        """The lines that differ, before and after, without their indents."""
        before, after = source(self.file).splitlines(), self.text().splitlines()
        matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
        edits = [each for each in matcher.get_opcodes() if each[0] != "equal"]
        old = [line.strip() for _, a, b, _, _ in edits for line in before[a:b]]
        new = [line.strip() for _, _, _, a, b in edits for line in after[a:b]]
        return "\n".join(old), "\n".join(new)


@dataclass(frozen=True)
class Owner:
    """A function or method of a file; ``kernel``: of Triton."""

    name: str
    body: Stretch
    text: str
    kernel: bool


def of(file: str) -> list[Mutant]:
    """The mutants of a file, in the order of their operators."""
    whole = source(file)
    tree = ast.parse(whole)
    blocks, left = owners(tree, whole), unchanged(tree)
    parsed = parso.parse(whole)
    found: list[Mutant] = []
    for name, operator in _NAMED.items():
        seen: dict[tuple[str, str], int] = {}
        for occurrence, (start, end) in enumerate(_places(parsed, operator)):
            if any(stretch.has(start, end) for stretch in left):
                continue
            owner = next((each for each in blocks if each.body.has(start, end)), None)
            text = owner.text if owner else whole
            where = (owner.name if owner else "", text)
            seen[where] = nth = seen.get(where, -1) + 1
            key = hashlib.sha256(f"{_RULES}\n{file}\n{where}\n{name}\n{nth}".encode()).hexdigest()[
                :16
            ]
            live = owner is not None and not owner.kernel
            found.append(Mutant(key, file, start[0], where[0], name, occurrence, live))
    return found


@cache
def source(file: str) -> str:
    """The text of a file of the checkout."""
    return (ROOT / file).read_text()


def _places(node: SyntaxNode, operator: Operator) -> list[Place]:
    """As cosmic-ray walks a file: children of a node before what stands beside it."""
    found = list(operator.mutation_positions(node))
    for child in getattr(node, "children", ()):
        found += _places(child, operator)
    return found


def owners(tree: ast.Module, source: str) -> list[Owner]:
    """Functions and methods that are not inside of another function."""
    found: list[Owner] = []

    def look(body: list[ast.stmt], within: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                look(node.body, f"{within}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                last = node.body[-1]
                assert last.end_lineno is not None
                assert last.end_col_offset is not None
                first = node.body[0]
                stretch = Stretch((first.lineno, 0), (last.end_lineno + 1, 0))
                text = ast.get_source_segment(source, node) or ""
                kernel = any("jit" in ast.unparse(each) for each in node.decorator_list)
                found.append(Owner(f"{within}{node.name}", stretch, text, kernel))

    look(tree.body, "")
    return found

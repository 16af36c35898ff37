"""What is changed: cosmic-ray's operators that weaken a rule, and four more of the same kind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Protocol

import parso
from cosmic_ray.operators.boolean_replacer import (
    AddNot,
    ReplaceFalseWithTrue,
    ReplaceTrueWithFalse,
)
from cosmic_ray.operators.break_continue import ReplaceBreakWithContinue, ReplaceContinueWithBreak
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.zero_iteration_for_loop import ZeroIterationForLoop

Place = tuple[tuple[int, int], tuple[int, int]]


class SyntaxNode(Protocol):
    """What is used of parso's nodes; a leaf has a value, any other has children."""

    type: str
    value: str
    children: list[SyntaxNode]
    prefix: str
    start_pos: tuple[int, int]
    end_pos: tuple[int, int]

    def get_code(self) -> str:
        """The text, with the white space before it."""
        ...

    def get_first_leaf(self) -> SyntaxNode:
        """The leaf at the beginning."""
        ...


_SWAPS = {
    "==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "is": "is not",
    "is not": "is", "in": "not in", "not in": "in",
    "+": "-", "-": "+", "*": "+", "//": "*", "/": "*", "%": "//", "&": "|", "|": "&", "^": "&",
    "<<": ">>", ">>": "<<", "@": "*",
}  # fmt: skip
_NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
_OPERATIONS = ("arith_expr", "term", "and_expr", "or_expr", "expr", "xor_expr", "shift_expr")


class SwapOperator(Operator):  # type: ignore[misc]
    """One operator for its neighbour: the edge of a bound moves, a sign turns."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type == "comparison" or node.type in _OPERATIONS:
            for sign in node.children[1::2]:
                if _text(sign) in _SWAPS:
                    yield sign.start_pos, sign.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        places = [n for n in range(1, len(node.children), 2) if _text(node.children[n]) in _SWAPS]
        sign = node.children[places[index]]
        node.children[places[index]] = _parsed(f" {_SWAPS[_text(sign)]}")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x < y", "x <= y"), Example("x not in y", "x in y"))


class DropOperand(Operator):  # type: ignore[misc]
    """One condition fewer of several that stand beside each other."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type in ("and_test", "or_test"):
            for operand in node.children[::2]:
                yield operand.start_pos, operand.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        at = 2 * index
        cut = slice(at, at + 2) if at + 1 < len(node.children) else slice(at - 1, at + 1)
        del node.children[cut]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x and y", " y"), Example("x or y", "x", occurrence=1))


class DropStatement(Operator):  # type: ignore[misc]
    """A statement that is a call, or that raises, does nothing."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type == "simple_stmt" and (
            node.children[0].type == "raise_stmt"
            or (node.children[0].type in ("atom_expr", "power") and "(" in node.get_code())
        ):
            yield node.start_pos, node.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        return _parsed(f"{node.get_first_leaf().prefix}pass\n")

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("check(x)\n", "pass\n"), Example("raise X\n", "pass\n"))


class OneMore(Operator):  # type: ignore[misc]
    """A number is one larger; one below 1 is ten times as large."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type == "number" and "j" not in node.value:
            yield node.start_pos, node.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        value = ast.literal_eval(node.value)
        node.value = repr(value * 10 if 0 < value < 1 else value + 1)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = 1", "x = 2"), Example("x = 0.5", "x = 5.0"))


class Inverted(AddNot):  # type: ignore[misc]
    """``if not x``, where no comparison, ``not`` or ``:=`` stands."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        for place in super().mutation_positions(node):
            test = node.children[2 if node.type == "test" else 1]
            if test.type not in ("comparison", "not_test", "namedexpr_test"):
                yield place


class DropNot(Operator):  # type: ignore[misc]
    """``x`` for ``not x``."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type == "not_test":
            yield node.start_pos, node.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        return node.children[1]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("not x", " x"),)


class SwapName(Operator):  # type: ignore[misc]
    """``any`` for ``all``, the smallest for the largest, and the other way round."""

    def mutation_positions(self, node: SyntaxNode) -> Iterator[Place]:
        if node.type == "name" and node.value in _NAMES:
            yield node.start_pos, node.end_pos

    def mutate(self, node: SyntaxNode, index: int) -> SyntaxNode:
        node.value = _NAMES[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("any(x)", "all(x)"),)


def _parsed(text: str) -> SyntaxNode:
    found: SyntaxNode = parso.parse(text)
    return found


def _text(node: SyntaxNode) -> str:
    return " ".join(node.get_code().split())


OPERATORS: tuple[Operator, ...] = (
    SwapOperator(),
    SwapName(),
    DropOperand(),
    DropNot(),
    DropStatement(),
    Inverted(),
    OneMore(),
    ReplaceTrueWithFalse(),
    ReplaceFalseWithTrue(),
    ReplaceBreakWithContinue(),
    ReplaceContinueWithBreak(),
    ZeroIterationForLoop(),
)

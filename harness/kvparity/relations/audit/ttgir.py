"""Triton's GPU dialect read for what decides an order: dots, reductions and their layouts, atomics.

The text is that of the compiler's last step before LLVM. Layouts are kept as the compiler writes
them, with their names resolved: which lane and warp holds which element is part of the order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ALIAS = re.compile(r"^(#\w+) = #(\w+\.\S*<\{.*\}>|\w+\.\w+<.*>)\s*$", re.MULTILINE)
_DOT = re.compile(r"\b(tt\.dot|ttng\.warp_group_dot|ttng\.tc_gen5_mma)\b (.*)")
_TYPE = re.compile(r"(?:tensor|memdesc)<((?:\d+x)+\w+), (#[\w.]+(?:<\{[^}]*\}>)?)")
_REDUCE = re.compile(
    r'"tt\.reduce"\([^)]*\) <\{axis = (\d+) : i32[^}]*\}> \(\{(.*?)\}\) : '
    r"\(tensor<((?:\d+x)+\w+), (#\w+(?:\.\w+<\{[^}]*\}>)?)",
    re.DOTALL,
)
_ATOMIC = re.compile(r"\btt\.atomic_(?:rmw|cas)\b")


@dataclass(frozen=True, order=True)
class Dot:
    """A matrix product: operation, operand shapes, layout of the result, precision.

    ``precision`` is Triton's ``input_precision`` (tf32, tf32x3, ieee, ..); ``imprecise`` how many
    additions may be in less than float32.
    """

    op: str
    a: str
    b: str
    layout: str
    precision: str
    imprecise: int


@dataclass(frozen=True, order=True)
class Reduce:
    """A reduction: its combiner, how many elements, and the layout of what it reduces."""

    combiner: str
    axis: int
    size: int
    layout: str


@dataclass(frozen=True)
class Structure:
    """What the text says; equal dots and reductions are one (a pipelined loop repeats them)."""

    dots: tuple[Dot, ...]
    reduces: tuple[Reduce, ...]
    atomics: int


def parse(text: str) -> Structure:
    """Read TTGIR. Raises ``ValueError`` if it holds no function, or a reduction is not readable."""
    if "tt.func" not in text:
        raise ValueError("this TTGIR has no function; expected the output of Triton's compiler")
    layouts = {name: _plain(layout) for name, layout in _ALIAS.findall(text)}
    found = _REDUCE.findall(text)
    if len(found) != text.count('"tt.reduce"'):
        raise ValueError("this TTGIR writes a reduction in a way that is not known here")
    reduces = {
        Reduce(
            "+".join(re.findall(r"arith\.(\w+)", body)),
            int(axis),
            int(shape.split("x")[int(axis)]),
            _name(layout, layouts),
        )
        for axis, body, shape, layout in found
    }
    dots = {_dot(op, rest, layouts) for op, rest in _DOT.findall(text)}
    return Structure(tuple(sorted(dots)), tuple(sorted(reduces)), len(_ATOMIC.findall(text)))


def k_widths(text: str) -> tuple[int, ...]:
    """How many neighbours along K a lane holds of dots' operands in registers, each once."""
    told = (re.findall(r"kWidth = (\d+)", rest) for _, rest in _DOT.findall(text))
    return tuple(sorted({int(width) for each in told for width in each}))


def _dot(op: str, rest: str, layouts: dict[str, str]) -> Dot:
    types = _TYPE.findall(rest)
    if len(types) < 3:
        raise ValueError(f"this TTGIR writes {op} in a way that is not known here: {rest[:120]}")
    precision = re.search(r"inputPrecision = (\w+)", rest)
    imprecise = re.search(r"maxNumImpreciseAcc = (\d+)", rest)
    # Operands stand first; the accumulator and result have one type.
    return Dot(
        op.rpartition(".")[2],
        types[0][0],
        types[1][0],
        _name(types[2][1], layouts),
        precision[1] if precision else "ieee",  # the default, which is not written
        int(imprecise[1]) if imprecise else 0,
    )


def _name(layout: str, layouts: dict[str, str]) -> str:
    return layouts.get(layout, _plain(layout.lstrip("#")))


def _plain(layout: str) -> str:
    return re.sub(r"^tt\w+\.", "", layout).replace("<{", "(").replace("}>", ")")

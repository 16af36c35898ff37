"""The float dataflow of a stretch of PTX, without names: which values are made from which.

Each value is a hash of its operation (with rounding and flushing) and of the values it is made
from; equal expressions are one value. Values from outside, loads and integers are leaves without a
name, so addresses and masks do not count. Products, sums, maxima and minima do not care about the
order of their two operands, a select is the set of what it chooses from, and packed arithmetic
(``.f32x2``) is arithmetic on its two lanes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from kvparity.relations.audit.ptx import Instruction, registers

LEAF = "leaf"
_FLOAT = re.compile(
    r"(?:fma|mul|add|sub|max|min|div|ex2|lg2|rcp|sqrt|neg|abs|tanh)\.(?:[\w:]+\.)*b?f(?:16|32)(?:x2)?$"
    r"|cvt\.\S*f(?:16|32)"
)
_UNROUNDED = re.compile(r"^(mul|add|sub)((?:\.ftz)?(?:\.sat)?\.f32)$")
_COMMUTES = ("mul", "add", "max", "min")


@dataclass(frozen=True, order=True)
class Node:
    """A value: its hash, the operation that makes it, and the hashes of what it is made from."""

    name: str
    op: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Skeleton:
    """The distinct values of a stretch, sorted by hash."""

    nodes: tuple[Node, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Ten hex digits; how often a value is computed, and when, does not matter."""
        return _hash("skeleton", *(each.name for each in self.nodes))

    @property
    def names(self) -> frozenset[str]:
        """The hashes."""
        return frozenset(each.name for each in self.nodes)

    def made_from(self, node: Node) -> frozenset[str]:
        """The hashes of all values from which one is made, near and far."""
        known = {each.name: each.parts for each in self.nodes}
        found: set[str] = set()
        todo = list(node.parts)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += known.get(name, ())
        return frozenset(found)

    def kinds(self) -> dict[str, int]:
        """Distinct values per operation."""
        return dict(sorted(Counter(each.op for each in self.nodes).items()))

    def beyond(self, other: Skeleton) -> dict[str, int]:
        """Values per operation that ``other`` does not have."""
        theirs = other.names
        only = Counter(each.op for each in self.nodes if each.name not in theirs)
        return dict(sorted(only.items()))

    def fits(self, other: Skeleton) -> bool:
        """Whether every value of each has its like in the other, as far as origins show.

        A value that passes through shared memory comes back as a leaf; here a leaf fits anything.
        """
        return _covered(self, other) and _covered(other, self)


def _covered(some: Skeleton, others: Skeleton) -> bool:
    mine, theirs = ({each.name: each for each in side.nodes} for side in (some, others))
    return all(
        any(_alike(each.name, like, mine, theirs) for like in theirs if theirs[like].op == each.op)
        for each in some.nodes
    )


def _alike(a: str, b: str, mine: dict[str, Node], theirs: dict[str, Node]) -> bool:
    if a == b or LEAF in (a, b):
        return True
    if a not in mine or b not in theirs:
        return False
    one, two = mine[a], theirs[b]
    return (
        one.op == two.op
        and len(one.parts) == len(two.parts)
        and any(
            all(_alike(x, y, mine, theirs) for x, y in zip(parts, two.parts, strict=True))
            for parts in _arrangements(one)
        )
    )


def _arrangements(node: Node) -> list[tuple[str, ...]]:
    kind = node.op.split(".")[0]
    if kind in _COMMUTES or kind in ("fma", "selp"):
        first, rest = node.parts[:2], node.parts[2:]
        return [node.parts, (*first[::-1], *rest)]
    return [node.parts]


def skeleton(
    part: Iterable[Instruction],
    leaves: AbstractSet[str] = frozenset(),
    *,
    exchanges: bool = True,
    constants: Mapping[str, str] = MappingProxyType({}),
    kinds: bool = True,
) -> Skeleton:
    """Walk a stretch once, in order. What was computed before it are leaves.

    ``constants``: registers that hold one number all the time (``ptx.constants``).
    ``leaves``: hashes of values to take as given, as if they had been loaded. ``exchanges``: an
    exchange between threads makes a value, as in a sum over threads; False where nothing is summed
    and it only moves one. ``kinds``: False makes a chain of matrix products one value, whichever
    instruction adds it in however many steps.
    """
    walk = _FlowWalk(leaves, exchanges, constants, kinds)
    for each in part:
        walk.step(each)
    return Skeleton(tuple(sorted(walk.nodes.values())))


def _ordered(op: str, parts: Iterable[str]) -> tuple[str, ...]:
    """Operands whose order does not matter, sorted."""
    kind, found = op.split(".")[0], tuple(parts)
    if kind in _COMMUTES or kind == "selp":
        return tuple(sorted(found))
    return (*sorted(found[:2]), *found[2:]) if kind == "fma" else found


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


class _FlowWalk:
    def __init__(
        self,
        leaves: AbstractSet[str],
        exchanges: bool,
        constants: Mapping[str, str],
        kinds: bool,
    ) -> None:
        self.leaves = leaves
        self.exchanges = exchanges
        self.kinds = kinds
        self.values: dict[str, str] = dict(constants)
        self.nodes: dict[str, Node] = {}
        self.choices: dict[str, frozenset[str]] = {}  # of a select
        self.origins: dict[str, frozenset[str]] = {}  # so, and where it is given
        self.lanes: dict[str, list[str]] = {}  # of a 64-bit register with two floats

    def get(self, operand: str) -> str:
        if operand.startswith("%"):
            return self.values.get(operand, LEAF)
        return operand if operand.startswith("0f") else LEAF

    def many(self, operand: str) -> list[str]:
        return [self.get(register) for register in registers(operand)]

    def pair(self, operand: str) -> list[str]:
        return self.lanes.get(operand, [LEAF, LEAF])

    def make(self, op: str, *parts: str) -> str:
        name = _hash(op, *parts)
        if name not in self.leaves:
            known = [LEAF if part in self.leaves else part for part in parts]
            parts = _ordered(op, known)
            name = _hash(op, *parts)
            self.nodes[name] = Node(name, op, parts)
        return name

    def step(self, each: Instruction) -> None:
        op, operands = each.op, each.operands
        if each.matrix:
            self.matrix(op, operands)
        elif op.startswith("mov."):
            self.move(op, *operands)
        elif op.startswith("selp.") and op.endswith(("f32", "b32")):
            self.select(operands)
        elif op.startswith("shfl.sync.bfly"):
            self.exchange(f"{op}:{operands[2]}", *operands[:2])
        elif op.endswith(".f32x2"):
            pairs = [self.pair(operand) for operand in operands[1:]]
            scalar = op.removesuffix("x2")
            self.lanes[operands[0]] = [
                self.compute(scalar, [pair[lane] for pair in pairs]) for lane in (0, 1)
            ]
        elif op.endswith("x2.f32"):  # a conversion of two floats
            scalar = op.replace("x2.f32", ".f32")
            lanes = [self.make(scalar, self.get(operand)) for operand in operands[1:]]
            self.values[operands[0]] = _hash("lanes", *lanes)
        elif _FLOAT.match(op):
            self.values[operands[0]] = self.compute(op, [self.get(o) for o in operands[1:]])
        elif operands:
            for register in registers(operands[0]):
                self.values.pop(register, None)
                self.lanes.pop(register, None)

    def exchange(self, op: str, target: str, source: str) -> None:
        value = self.get(source)
        if self.exchanges or _hash(op, value) in self.leaves:
            value = self.make(op, value)
        (register,) = registers(target)
        self.values[register] = value

    def compute(self, op: str, parts: list[str]) -> str:
        # Without a rounding mode it is to nearest, and the compiler may contract; whether it did
        # is counted in SASS.
        op = _UNROUNDED.sub(r"\1.rn\2", op)
        return self.make(op, *_ordered(op, parts))

    def move(self, op: str, target: str, source: str) -> None:
        if target.startswith("{"):
            whole, targets = self.get(source), registers(target)
            parts = self.lanes.get(source, [])
            if len(parts) != len(targets):
                known = whole != LEAF
                parts = [
                    _hash("part", str(n), whole) if known else LEAF for n in range(len(targets))
                ]
            self.values.update(zip(targets, parts, strict=True))
        elif source.startswith("{"):
            inputs = self.many(source)
            if op == "mov.b64":
                self.lanes[target] = inputs
            else:
                known = any(each != LEAF for each in inputs)
                self.values[target] = self.make("pack", *inputs) if known else LEAF
        else:
            self.values[target] = self.get(source)
            lanes = self.lanes.get(source)
            self.lanes.pop(target, None)
            if lanes is not None:
                self.lanes[target] = lanes

    def select(self, operands: tuple[str, ...]) -> None:
        # Compilers turn conditions round, form one from two, or select twice; all say the same.
        inputs = [self.get(operand) for operand in operands[1:3]]
        whole = frozenset[str]().union(*(self.origins.get(each, {each}) for each in inputs))
        given = _hash("selp.f32", *_ordered("selp.f32", whole))
        self.origins[given] = whole
        choices = frozenset[str]().union(*map(self.chosen, inputs))
        if given in self.leaves:
            choices = frozenset({given})
        if len(choices) == 1:  # integers; or equal values of two places, which were exchanged
            (self.values[operands[0]],) = choices
            return
        name = self.make("selp.f32", *_ordered("selp.f32", choices))
        if name not in self.leaves:
            self.choices[name] = choices
        self.values[operands[0]] = name

    def chosen(self, value: str) -> frozenset[str]:
        """What a value is chosen from; one that is taken as given tells nothing of it."""
        return self.choices.get(value, frozenset({LEAF if value in self.leaves else value}))

    def matrix(self, op: str, operands: tuple[str, ...]) -> None:
        if op.startswith("tcgen05."):
            self.make(op)  # its accumulators lie in tensor memory: no value flows in registers
            return
        targets = registers(operands[0])
        flags = [each for each in operands if not each.startswith(("%", "{", "["))]
        if op.startswith("wgmma."):
            inputs = self.many(operands[1]) if operands[1].startswith("{") else ["shared"]
            zero = operands[3] == "0"  # the scale of D: the accumulators are not read
            before = ["zero"] * len(targets) if zero else self.many(operands[0])
        else:
            inputs = [*self.many(operands[1]), "|", *self.many(operands[2])]
            before = self.many(operands[3])
        if not self.kinds:
            known = [each for each in self.many(operands[1]) if each != LEAF]
            made = [self.product(_hash(*known), each) for each in before]
            self.values.update(zip(targets, made, strict=True))
            return
        shared = _hash(*inputs, "|", *flags)
        made = [self.make(op, shared, each) for each in before]
        self.values.update(zip(targets, made, strict=True))

    def product(self, left: str, before: str) -> str:
        start = LEAF if before in ("zero", "0f00000000") else before
        known = self.nodes.get(start)
        more = known is not None and (known.op, known.parts[0]) == ("product", left)
        return start if more else self.make("product", left, start)

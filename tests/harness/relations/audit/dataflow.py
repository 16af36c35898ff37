"""The dataflow of random straight programs as trees, told apart from its reader by having no names.

A tree is ``leaf``, a number (``0f..``), or an operation with the trees that it is made from.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence, Set
from typing import Any

from kvparity.relations.audit.flow import Skeleton

Tree = Any  # str, or (op, tree, ..)
LEAF = "leaf"
_TWO = ("add.rn.f32", "add.f32", "sub.rn.f32", "mul.rn.f32", "mul.rn.ftz.f32", "max.f32", "min.f32",
        "div.full.f32")  # fmt: skip
_KINDS = (
    *("two", "two", "one", "three", "move", "number", "pack", "unpack", "pairs", "copy"),
    *("select", "select", "integer", "load", "loads", "exchange", "add"),
)
_FREE = ("add", "mul", "max", "min")


def tree(op: str, parts: Sequence[Tree]) -> Tree:
    """Operands whose order does not count stand in one order."""
    kind = op.split(".")[0]
    free = {"fma": 2, "selp": len(parts)}.get(kind, len(parts) if kind in _FREE else 0)
    return (op, *sorted(parts[:free], key=repr), *parts[free:])


def program(seed: int, length: int = 14) -> list[tuple[str, ...]]:
    """Operations on four registers and three pairs, from which everything can come again."""
    chance = random.Random(seed)

    def one() -> str:
        return f"%r{chance.randint(1, 4)}"

    def pair() -> str:
        return f"%rd{chance.randint(1, 3)}"

    made = []
    for _ in range(length):
        kind = chance.choice(_KINDS)
        packed = chance.choice(("add.rn.f32x2", "mul.rn.f32x2", "fma.rn.f32x2"))
        line = {
            "two": (chance.choice(_TWO), one(), one(), one()),
            "one": (chance.choice(("ex2.approx.f32", "neg.f32")), one(), one()),
            "three": ("fma.rn.f32", one(), one(), one(), one()),
            "move": ("mov.b32", one(), one()),
            "number": ("mov.b32", one(), chance.choice(("0f3F800000", "0f00000000"))),
            "pack": ("mov.b64", pair(), f"{{{one()}, {one()}}}"),
            "unpack": ("mov.b64", "{%r1, %r2}", pair()),
            "pairs": (packed, *(pair() for _ in range(4 if packed.startswith("fma") else 3))),
            "copy": ("mov.b64", pair(), pair()),
            "select": ("selp.f32", one(), one(), one(), "%p1"),
            "integer": ("selp.b32", one(), one(), one(), "%p1"),
            "load": ("ld.shared.b32", one(), "[%r9]"),
            "loads": ("ld.shared.b64", pair(), "[%r9]"),
            "exchange": ("shfl.sync.bfly.b32", one(), one(), chance.choice("12"), "31", "-1"),
            "add": ("add.s32", one(), one(), "1"),
        }[kind]
        made.append(line)
    return made


def text(lines: Iterable[tuple[str, ...]]) -> str:
    return "{\n" + "".join(f"{op} {', '.join(rest)};\n" for op, *rest in lines) + "}"


def trees(
    lines: Iterable[tuple[str, ...]], given: Set[Tree] = frozenset(), exchanges: bool = True
) -> set[Tree]:
    """All values that a program makes. Those of ``given`` are taken as if they were loaded."""
    held: dict[str, Tree] = {}  # a pair holds a tuple of two under its name and no op
    found: set[Tree] = set()
    selects: set[Tree] = set()

    def get(name: str) -> Tree:
        return name if name.startswith("0f") else held.get(name, LEAF)

    def two(name: str) -> list[Tree]:
        return held.get(name, [LEAF, LEAF])

    def make(op: str, *parts: Tree) -> Tree:
        whole = tree(op, parts)
        if whole in given:
            return whole
        whole = tree(op, [LEAF if part in given else part for part in parts])
        found.add(whole)
        return whole

    def select(op: str, *values: Tree) -> Tree:
        if op == "selp.b32" and values == (LEAF, LEAF):
            return LEAF
        flat = [value[1:] if value in selects else [value] for value in values]
        whole = tree("selp.f32", list({choice for each in flat for choice in each}))
        selects.add(whole)
        if whole in given:  # as it was made where it is given, from choices that are given, too
            return whole
        choices: set[Tree] = set()
        for value in values:
            if value in given and value[0] != "selp.f32":
                choices.add(LEAF)
            elif value[0] == "selp.f32" and value not in given:
                choices.update(value[1:])
            else:
                choices.add(LEAF if value in given else value)
        return choices.pop() if len(choices) == 1 else make("selp.f32", *choices)

    for op, to, *rest in lines:
        if op == "mov.b32":
            held[to] = get(rest[0])
        elif op == "mov.b64" and to.startswith("{"):
            held["%r1"], held["%r2"] = two(rest[0])
        elif op == "mov.b64":
            braced = rest[0].startswith("{")
            held[to] = [get(n) for n in rest[0][1:-1].split(", ")] if braced else two(rest[0])
        elif op.endswith("x2"):
            held[to] = [make(op[:-2], *lanes) for lanes in zip(*map(two, rest), strict=True)]
        elif op.startswith("selp"):
            held[to] = select(op, *map(get, rest[:2]))
        elif op.startswith("shfl"):
            value, moved = get(rest[0]), f"{op}:{rest[1]}"
            held[to] = make(moved, value) if exchanges or (moved, value) in given else value
        elif op.startswith(("ld", "add.s32")):
            held.pop(to, None)
        else:
            held[to] = make(op.replace("add.f32", "add.rn.f32"), *map(get, rest))
    return found


def expanded(found: Skeleton) -> dict[str, Tree]:
    """What was read, as trees by name."""
    known = {each.name: each for each in found.nodes}

    def whole(name: str) -> Tree:
        if name not in known:
            return name
        return tree(known[name].op, [whole(part) for part in known[name].parts])

    return {name: whole(name) for name in known}

"""Sums written as nested tuples: what a tree is, in the plainest way there is.

A number is a term; a tuple is the sum of its members, all at once. Nothing here uses ``SumTree``
but :func:`given_anyhow`, which makes one.
"""

from __future__ import annotations

import random
import re

from kvparity.relations.order import SumTree

Nested = int | tuple  # type: ignore[type-arg]


def leaves(x: Nested) -> list[int]:
    """The terms of a sum."""
    return [x] if isinstance(x, int) else [leaf for part in x for leaf in leaves(part)]


def sums(x: Nested) -> list[tuple]:
    """Every sum in it, those below first, by least term; itself last."""
    if isinstance(x, int):
        return []
    return [
        *(each for part in sorted(x, key=lambda part: min(leaves(part))) for each in sums(part)),
        x,
    ]


def depth(x: Nested) -> int:
    """Additions that the deepest term goes through."""
    return 0 if isinstance(x, int) else 1 + max(map(depth, x))


def drawn(n: int, draw: random.Random, most: int = 2) -> Nested:
    """A random sum of ``n`` terms, up to ``most`` at once."""
    parts: list[Nested] = list(range(n))
    while len(parts) > 1:
        chosen = draw.sample(parts, min(len(parts), draw.randint(2, most)))
        parts = [x for x in parts if x not in chosen] + [tuple(chosen)]
    return parts[0]


def added(x: Nested, terms):
    """Add ``terms`` so, two by two; more at once from left to right."""
    if isinstance(x, int):
        return terms[x]
    total = added(x[0], terms)
    for part in x[1:]:
        total = total + added(part, terms)
    return total


def given_anyhow(x: Nested, draw: random.Random) -> SumTree:
    """The tree, its nodes in any order, each with its children in any order."""
    n, every = len(leaves(x)), sums(x)
    mixed = draw.sample(every, len(every))
    place = {id(each): n + at for at, each in enumerate(mixed)}
    nodes = [
        [part if isinstance(part, int) else place[id(part)] for part in each] for each in mixed
    ]
    return SumTree.build(n, [draw.sample(node, len(node)) for node in nodes])


def shape(x: Nested) -> Nested:
    """The sum with its parts by least term, every term a 0."""
    if isinstance(x, int):
        return 0
    return tuple(shape(part) for part in sorted(x, key=lambda part: min(leaves(part))))


def read(text: str) -> Nested:
    """The sum of which ``text`` is the description: terms are counted from left to right."""
    tokens, count = re.findall(r"[][(){}.]|\*\d+", text), [0]

    def part(at: int) -> tuple[Nested, int]:
        if tokens[at] == ".":
            count[0] += 1
            return count[0] - 1, at + 1
        found: list[Nested] = []
        way, at = tokens[at], at + 1
        while tokens[at] not in ")}]":
            begin = at
            one, at = part(begin)
            found.append(one)
            if tokens[at].startswith("*"):
                found += [part(begin)[0] for _ in range(int(tokens[at][1:]) - 1)]
                at += 1
        if way == "[":
            return tuple(found), at + 1
        total, *rest = found if way == "(" else found[::-1]
        for one in rest:
            total = (total, one)
        return total, at + 1

    return part(0)[0]

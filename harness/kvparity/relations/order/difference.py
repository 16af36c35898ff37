"""The first difference of two trees, in words."""

from __future__ import annotations

import random

from kvparity.core.words import some
from kvparity.relations.order.tree import SumTree


def first_difference(a: SumTree, b: SumTree, *, names: tuple[str, str] = ("one", "other")) -> str:
    """The smallest partial sum that only one of the trees forms; ``""`` for equal trees."""
    if a.n != b.n:
        return f"{names[0]} adds {a.n} terms, {names[1]} {b.n}"
    if a == b:
        return ""
    mine, theirs = partial_sums(a), partial_sums(b)
    only = [
        (a.sizes[x], a.spans[x], names[0], a, x) for key, x in mine.items() if key not in theirs
    ]
    only += [
        (b.sizes[x], b.spans[x], names[1], b, x) for key, x in theirs.items() if key not in mine
    ]
    size, _, name, tree, x = min(only, key=lambda found: found[:3])
    here, there = len(mine.keys() - theirs.keys()), len(theirs.keys() - mine.keys())
    return (
        f"only {name} forms the partial sum of {size} terms {shorten(tree.terms(x))} "
        f"({some(here, 'partial sum')} {'is' if here == 1 else 'are'} {names[0]}'s alone, "
        f"{there} {names[1]}'s)"
    )


def shorten(terms: list[int]) -> str:
    """``0..3, 7`` with at most four runs."""
    runs: list[list[int]] = []
    for x in terms:
        if runs and x == runs[-1][1] + 1:
            runs[-1][1] = x
        else:
            runs.append([x, x])
    shown = [str(a) if a == b else f"{a}..{b}" for a, b in runs[:4]]
    return ", ".join(shown) + (", …" if len(runs) > 4 else "")


def sum_keys(n: int) -> list[int]:
    """A random 128-bit number for each of n terms; the key of a sum is the sum of them."""
    draw = random.Random(0)
    return [draw.getrandbits(128) for _ in range(n)]


def partial_sums(tree: SumTree) -> dict[int, int]:
    """A key of every partial sum's set of terms, and the node that forms it.

    The key is modulo 2^128: two different sets share one with probability 2^-128, and the tree of
    one key is never copied per node.
    """
    keys = sum_keys(tree.n)
    for node in tree.nodes:
        keys.append(sum(keys[c] for c in node) % 2**128)
    return {keys[tree.n + t]: tree.n + t for t in range(len(tree.nodes))}

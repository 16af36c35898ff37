"""The shape of a tree with its repetitions folded, and one line of text for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvparity.relations.order.tree import SumTree

Kind = Literal["up", "down", "fused"]
_BRACKETS = {"up": ("(", ")"), "down": ("{", "}"), "fused": ("[", "]")}
_LEVELS = 12  # of nesting that are written out


@dataclass(frozen=True)
class Run:
    """``count`` summands of one shape in a row; ``first`` and ``last`` are ids in the tree."""

    shape: int
    count: int
    first: int
    last: int


@dataclass(frozen=True)
class Folded:
    """What each visible node adds, keyed by its id in the tree.

    ``up``: from left to right into one running sum; ``down``: from right to left; ``fused``: all at
    once. Nodes inside another one's chain are not visible.
    """

    tree: SumTree
    kinds: dict[int, Kind]
    runs: dict[int, tuple[Run, ...]]

    @property
    def root(self) -> int:
        """The id of the root."""
        return self.tree.n + len(self.tree.nodes) - 1


def fold(tree: SumTree) -> Folded:
    """Find chains and repetitions."""
    n, kinds, goes_on = tree.n, _kinds(tree), set[int]()
    inside: set[int] = set()
    for t, node in enumerate(tree.nodes):
        x = n + t
        spine, other = _spine(kinds[x], node)
        if _continues(tree, kinds, goes_on, x, spine, other):
            goes_on.add(x)
            inside.add(spine)
    shapes: dict[int, int] = dict.fromkeys(range(n), 0)
    known: dict[tuple[Kind, tuple[tuple[int, int], ...]], int] = {}
    runs: dict[int, tuple[Run, ...]] = {}
    for x in range(n, n + len(tree.nodes)):
        if x in inside:
            continue
        runs[x] = _runs(_summands(tree, kinds[x], goes_on, x), shapes)
        key = (kinds[x], tuple((run.shape, run.count) for run in runs[x]))
        shapes[x] = known.setdefault(key, len(known) + 1)
    return Folded(tree, {x: kinds[x] for x in runs}, runs)


def _kinds(tree: SumTree) -> dict[int, Kind]:
    kinds: dict[int, Kind] = {}
    for t, node in enumerate(tree.nodes):
        sizes = [tree.sizes[c] for c in node]
        kinds[tree.n + t] = "fused" if len(node) > 2 else "up" if sizes[0] >= sizes[1] else "down"
    return kinds


def _spine(kind: Kind, node: tuple[int, ...]) -> tuple[int, int]:
    """The running sum and what is added to it."""
    return (node[1], node[0]) if kind == "down" else (node[0], node[1])


def _continues(
    tree: SumTree, kinds: dict[int, Kind], goes_on: set[int], x: int, spine: int, other: int
) -> bool:
    """Whether the addition at ``x`` is one more step of the chain that ``spine`` is."""
    if kinds[x] == "fused":
        return False
    pair = tree.sizes[spine] == 2
    if tree.sizes[spine] <= tree.sizes[other] or not (pair or kinds[spine] == kinds[x]):
        return False
    before = _spine(kinds[spine], tree.nodes[spine - tree.n])[1]
    return spine in goes_on or tree.sizes[before] == tree.sizes[other]


def _summands(tree: SumTree, kind: Kind, goes_on: set[int], x: int) -> list[int]:
    """What the chain that ends at ``x`` adds, in the order of the terms."""
    found: list[int] = []
    while x in goes_on:
        x, other = _spine(kind, tree.nodes[x - tree.n])
        found.append(other)
    node = list(tree.nodes[x - tree.n])
    return found + node if kind == "down" else node + found[::-1]


def _runs(summands: list[int], shapes: dict[int, int]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for x in summands:
        if runs and runs[-1].shape == shapes[x]:
            last = runs[-1]
            runs[-1] = Run(last.shape, last.count + 1, last.first, x)
        else:
            runs.append(Run(shapes[x], 1, x, x))
    return tuple(runs)


def describe(tree: SumTree, limit: int = 160) -> str:
    """One line: ``.`` a term, ``(a b c)`` added left to right, ``{a b c}`` right to left, ``[a b]``
    at once, ``*3`` three of them in a row.

    ``strided`` is appended if a partial sum leaves out terms between its own.
    """
    folded = fold(tree)
    text = dict.fromkeys(range(tree.n), ".")
    height = dict.fromkeys(range(tree.n), 0)
    for x, runs in folded.runs.items():
        height[x] = 1 + max(height[run.first] for run in runs)
        left, right = _BRACKETS[folded.kinds[x]]
        inner = [text[r.first] + (f"*{r.count}" if r.count > 1 else "") for r in runs]
        whole = left + " ".join(inner) + right
        if height[x] % _LEVELS == 0 or len(whole) > limit:
            whole = f"{left}…{tree.sizes[x]} terms…{right}"
        text[x] = whole
    line = text[folded.root] if tree.nodes else "."
    gaps = any(
        high - low + 1 != size for (low, high), size in zip(tree.spans, tree.sizes, strict=True)
    )
    return line + (" strided" if gaps else "")

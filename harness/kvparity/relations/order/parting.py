"""The first node at which two sides part, on the data of one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from kvparity.core.bits import differing, ulps
from kvparity.core.words import some
from kvparity.relations.order.difference import first_difference
from kvparity.relations.order.row_replay import (
    ReplayedRow,
    Rounding,
    RowData,
    RowOrder,
    replay_row,
    roundings,
)

NODES = ("score", "maximum", "denominator", "sum of P V", "result")
"""What is compared, in the order of computation."""


@dataclass(frozen=True)
class Parting:
    """Both sides' bits are reproduced; ``node`` is the first value that is unlike, of query head
    ``head``, at key or column ``at``, by ``ulps``. ``walks``: how each side walks the keys;
    ``sums``: the first partial sum that only one of them forms, or why else."""

    node: str
    head: int
    at: int
    ulps: int
    walks: tuple[str, str]
    sums: str

    def words(self, reference: str, candidate: str) -> str:
        """A sentence."""
        where = {"score": "key", "weight": "key", "sum of P V": "dim"}.get(self.node)
        at = f", {where} {self.at}" if where else ""
        far = some(self.ulps, "ulp")
        told = f"the {self.node} differs first, by {far} (head {self.head}{at}): {self.sums}"
        if self.walks[0] == self.walks[1]:
            return f"both walk {self.walks[0]}; {told}"
        return f"{reference} walks {self.walks[0]}, {candidate} {self.walks[1]}; {told}"


def parting(
    data: RowData,
    orders: tuple[RowOrder, RowOrder],
    results: tuple[Tensor, Tensor],
    names: tuple[str, str],
) -> Parting | None:
    """Where the sides of which ``results`` ``[H, Dv]`` are the bits part, or None: no replay gives
    the bits of both."""
    first = _reproduced(data, orders[0], results[0])
    second = None if first is None else _reproduced(data, orders[1], results[1])
    if first is None or second is None:
        return None
    (mine, one), (theirs, two) = first, second
    head = int(differing(*results).any(-1).nonzero()[0])
    for name, a, b in _nodes(one, two, unlike=mine.unit != theirs.unit):
        off = differing(a[head].reshape(-1), b[head].reshape(-1))
        if bool(off.any()):
            at = int(off.nonzero()[0])
            far = int(ulps(a[head].reshape(-1)[at], b[head].reshape(-1)[at]))
            sums = _sums(name, orders, names) or _rounded(mine, theirs, names)
            return Parting(name, head, at, far, (_walk(orders[0]), _walk(orders[1])), sums)
    return None


def _reproduced(data: RowData, order: RowOrder, out: Tensor) -> tuple[Rounding, ReplayedRow] | None:
    for how in roundings(data.dtype):
        found = replay_row(data, order, how)
        if not bool(differing(found.out, out).any()):
            return how, found
    return None


def _nodes(
    one: ReplayedRow, two: ReplayedRow, *, unlike: bool
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """``unlike``: scores are in other units."""
    pairs: Sequence[tuple[Tensor, Tensor]] = (
        (one.scores, two.scores),
        (one.top, two.top),
        (one.weight, two.weight),
        (one.values, two.values),
        (one.out, two.out),
    )
    for name, (a, b) in zip(NODES, pairs, strict=True):
        if not (unlike and name in NODES[:2]) and a.shape == b.shape:
            yield ("weight" if name == "denominator" and a.dim() == 2 else name), a, b


def _sums(node: str, orders: tuple[RowOrder, RowOrder], names: tuple[str, str]) -> str:
    one, two = orders
    if node == "score":
        return first_difference(one.products, two.products, names=names)
    tree = first_difference(one.weights, two.weights, names=names)
    if node == "weight":  # how it is divided is a matter of rounding, and told there
        return ""
    if node == "denominator" and tree:
        return tree
    if node == "denominator" or one.keys == two.keys:
        return "" if one.edges == two.edges else "the maximum is renewed at other keys"
    return first_difference(one.keys, two.keys, names=names)


def _rounded(one: Rounding, two: Rounding, names: tuple[str, str]) -> str:
    """Which rounding is unlike, where the trees are the same."""
    unlike = [
        f"{key} is {a} for {names[0]} and {b} for {names[1]}"
        for (key, a), b in zip(vars(one).items(), vars(two).values(), strict=True)
        if a != b
    ]
    return "the same partial sums; " + (", ".join(unlike) or "nothing else is unlike")


def _walk(order: RowOrder) -> str:
    """``keys 0..82 as 2 splits from 0, 64 of 4 and 2 tiles``."""
    splits = order.blocks()
    n = order.keys.n
    tiles = " and ".join(dict.fromkeys(str(len(each)) for each in splits))
    many = "" if tiles == "1" else f" of {tiles} tiles"
    if any(each[0].start > each[-1].start for each in splits):
        many += ", the last first"
    if len(splits) == 1:
        return f"keys 0..{n - 1} as one split{many}"
    cuts = [min(tile.start for tile in each) for each in splits]
    shown = ", ".join(map(str, cuts[:6])) + (", …" if len(cuts) > 6 else "")
    return f"keys 0..{n - 1} as {len(splits)} splits from {shown}{many}"

"""Why no tree fits: answers that change, or columns that are reduced differently."""

from __future__ import annotations

import numpy as np

from kvparity.relations.order.difference import first_difference
from kvparity.relations.order.errors import NotATree, ProbeLied
from kvparity.relations.order.keys import KeyOrder, Mode
from kvparity.relations.order.recover import recover
from kvparity.relations.order.sides import Side
from kvparity.relations.order.tree import SumTree

_LOOKED_AT = 5  # columns


def explain(side: Side, mode: Mode, failure: str) -> str:
    """A failed recovery of the key order in more words: unstable, by column, or neither."""
    draw = np.random.default_rng(0)
    pairs = np.sort(
        np.stack([draw.choice(side.keys, 2, replace=False) for _ in range(side.heads.dim)]), 1
    )
    try:
        first, again = KeyOrder(side, mode)(pairs), KeyOrder(side, mode)(pairs)
    except ProbeLied as lie:
        return f"{side.which}: {failure}; {lie}"
    if (first != again).any():
        return (
            f"{side.which}: {int((first != again).sum())} of {len(pairs)} answers changed when the "
            f"same call was repeated ({failure})"
        )
    found: dict[int, SumTree] = {}
    spread = np.unique(np.linspace(0, side.heads.dim - 1, _LOOKED_AT).astype(int))
    for column in map(int, spread):
        try:
            found[column] = recover(KeyOrder(side, mode, columns=(column,)))[0]
        except (NotATree, ProbeLied):
            continue
    for column, tree in found.items():
        if tree != found[base := next(iter(found))]:
            names = (f"column {base}", f"column {column}")
            return (
                f"{side.which}: columns of V are reduced in different orders: "
                f"{first_difference(found[base], tree, names=names)}"
            )
    return f"{side.which}: {failure}"

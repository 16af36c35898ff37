"""How every control is planted, by its name; all else of it is its row in the contracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kvparity.controls import (
    attended,
    cache,
    dispatch,
    exponent,
    export,
    instructions,
    linears,
    many_rows,
    order,
    pages,
    pair_calls,
    parts,
    repeats,
    reuse,
    rope,
    score,
    semantics,
    sequence,
    stores,
    windows,
)
from kvparity.controls.base import Handover, Plant, same_ids, unchanged
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_kernels.order import ReductionOrder

_MODULES = (
    attended, cache, dispatch, exponent, export, instructions, linears, many_rows, order, pages,
    pair_calls,
    parts, repeats, reuse, rope, score, sequence, stores, windows,
)  # fmt: skip
_FUNCTIONS = {name: found for module in _MODULES for name, found in vars(module).items()}
PLANTS: dict[str, Plant] = {
    name: _FUNCTIONS[function]
    for name, row in CONTROLS.items()
    if row.side != "handover" and (function := name.replace("-", "_")) in _FUNCTIONS
} | semantics.PLANTED
"""Defects of a subject: those of one side, of both, and of the kernels that an order check probes.

A function that plants a control has its name, with underscores.
"""

HANDOVERS: dict[str, Handover] = {
    "retokenised": sequence.retokenised,
    "id-reported-as-another": sequence.id_reported_as_another,
    "unequal-lengths": sequence.unequal_lengths,
}
"""Defects of what the rescoring side is given."""

RECOMPILED: dict[str, Callable[[ReductionOrder], ReductionOrder]] = {
    "other-tile": order.retiled,
    "other-warps": order.rewarped,
}
"""The order that decode is compiled in where an audit must see another than prefill's."""

ELSEWHERE: dict[str, Mapping[str, str]] = {"other-architecture": instructions.OTHER}
"""What decode is compiled for where an audit must see that it is another architecture's."""


@dataclass(frozen=True)
class Planting:
    """What the two sides of a comparison run with; by default nothing is planted."""

    rollout: Plant = unchanged
    rescore: Plant = unchanged
    handover: Handover = same_ids


def planting(row: Control) -> Planting:
    """The defect of a row, on the side that the row names."""
    if row.side == "handover":
        return Planting(handover=HANDOVERS[row.name])
    plant = PLANTS[row.name]
    return Planting(
        rollout=unchanged if row.side == "rescore" else plant,
        rescore=unchanged if row.side == "rollout" else plant,
    )

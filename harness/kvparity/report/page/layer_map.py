"""Layers by operations: in how many rows each gave birth to a difference, or passed one on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvparity.births.document import LocatedMap

_LAYER = re.compile(r"^(.*?)\.?\b(\d+)(?:\.|\s+|$)(.*)$")
"""``model.layers.3.self_attn attention``: what is before the number, the number, the operation."""


@dataclass(frozen=True)
class MapCell:
    """``born`` and ``differs``: rows. ``shade``: of births, from 0 (none) to 4 (most)."""

    operation: str
    born: int
    differs: int
    ulps: int
    shade: int


@dataclass(frozen=True)
class MapRow:
    """One layer, or what is outside of them."""

    name: str
    cells: tuple[MapCell | None, ...]


@dataclass(frozen=True)
class LayerMap:
    """``columns``: operations, in the order in which they are computed."""

    columns: tuple[str, ...]
    rows: tuple[MapRow, ...]


def layer_map(found: LocatedMap) -> LayerMap:
    """By the names that operations have."""
    most = max((len(each.born) for each in found.operations), default=0)
    layers: dict[str, dict[str, MapCell]] = {}
    for each in found.operations:
        layer, column = _place(each.operation)
        born = len(each.born)
        shade = 0 if not born else max(1, -(-4 * born // most))
        cell = MapCell(each.operation, born, len(each.differs), each.ulps, shade)
        layers.setdefault(layer, {})[column] = cell
    columns = tuple(dict.fromkeys(name for cells in layers.values() for name in cells))
    return LayerMap(
        columns,
        tuple(
            MapRow(name, tuple(cells.get(column) for column in columns))
            for name, cells in sorted(layers.items(), key=lambda item: _in_order(item[0]))
        ),
    )


def _place(operation: str) -> tuple[str, str]:
    found = _LAYER.match(operation)
    if found is None:
        return "", operation
    before, number, rest = found.groups()
    return f"{before} {number}".strip(), rest or "whole"


def _in_order(layer: str) -> tuple[bool, str, int]:
    """Layers by number; what is outside of them last."""
    name, _, number = layer.rpartition(" ")
    return (not layer, name, int(number) if number.isdigit() else 0)

"""Operations by position: what differs, and where it was born."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvparity.births.document import LocatedMap
from kvparity.core import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 60
"""Operations that are drawn: those with births first."""
INHERITED, BORN = "#c9d3de", "#b3273e"


def draw(found: LocatedMap) -> str:
    """An SVG: a square for each row of an operation that differs, red where it was born."""
    operations = found.operations
    if len(operations) > MOST:
        operations = tuple(each for each in operations if each.born)[:MOST]
    rows = range(len(operations))
    born = [(at, row) for row in rows for at in operations[row].born]
    kept = {*born}
    passed = [(at, row) for row in rows for at in operations[row].differs if (at, row) not in kept]
    places = found.places

    def put(figure: Figure) -> None:
        axes = figure.add_subplot()
        for colour, label, squares in (
            (INHERITED, "differs, as its inputs do", passed),
            (BORN, "born here: inputs are equal", born),
        ):
            x, y = [at for at, _ in squares], [row for _, row in squares]
            axes.scatter(x, y, s=14, marker="s", color=colour, label=label)
        axes.set_yticks(rows, [each.operation for each in operations])
        axes.set_ylim(len(operations) - 0.5, -0.5)
        step = max(1, len(places) // 12)
        axes.set_xticks(range(0, len(places), step), [str(p) for _, p in places[::step]])
        axes.set_xlabel("position (sequences one after the other)")
        figure.legend(loc="outside upper left", ncols=2)

    return plots.svg(put, 9.0, 1.6 + 0.2 * max(4, len(operations)))

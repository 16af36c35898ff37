"""Operations by position: what differs, and where it was born."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvparity.core import plots
from kvparity.locate.account import Account

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 60
"""Operations that are drawn: those with births first."""
INHERITED, BORN = "#c9d3de", "#b3273e"


def draw(found: Account) -> str:
    """An SVG: a square for each row of an operation that differs, red where it was born."""
    born = {(each.operation, (each.sequence, each.position)) for each in found.births}
    with_births = {each.operation for each in found.births}
    operations = [
        each
        for each in dict.fromkeys(operation for operation, _ in found.unlike)
        if each in with_births or not each.endswith(" input")
    ]
    if len(operations) > MOST:
        operations = [each for each in operations if each in with_births][:MOST]
    rows = {operation: number for number, operation in enumerate(operations)}
    places = sorted({place for _, place in found.unlike} | {place for _, place in born})
    columns = {place: number for number, place in enumerate(places)}
    shown = [key for key in {*found.unlike, *born} if key[0] in rows]

    def put(figure: Figure) -> None:
        axes = figure.add_subplot()
        for colour, label, keys in (
            (INHERITED, "differs, as its inputs do", [key for key in shown if key not in born]),
            (BORN, "born here: inputs are equal", [key for key in shown if key in born]),
        ):
            x, y = [columns[place] for _, place in keys], [rows[name] for name, _ in keys]
            axes.scatter(x, y, s=14, marker="s", color=colour, label=label)
        axes.set_yticks(range(len(operations)), operations)
        axes.set_ylim(len(operations) - 0.5, -0.5)
        step = max(1, len(places) // 12)
        axes.set_xticks(range(0, len(places), step), [str(p) for _, p in places[::step]])
        axes.set_xlabel("position (sequences one after the other)")
        figure.legend(loc="outside upper left", ncols=2)

    return plots.svg(put, 9.0, 1.6 + 0.2 * max(4, len(operations)))

"""The price table as a plot: one bar per case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvparity.core import plots
from kvparity.labs.bench.measure import CaseTimes, price

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHEAPER, _DEARER = "#7fb389", "#d98c6a"


def draw(title: str, found: Sequence[CaseTimes]) -> str:
    """An SVG document; a bar up to the line is as fast as the fastest other way.

    Raises:
        ValueError: times of a case are of different runs.
    """
    bars = [(each.case.name, *cost) for each in found if (cost := price(each)) is not None]

    def plot(figure: Figure) -> None:
        figure.suptitle(title)
        axes = figure.add_subplot()
        axes.set_title("times as long as the fastest other way; the line is 1", fontsize="small")
        ratios = [ratio for _, _, ratio in bars]
        colours = [_CHEAPER if ratio <= 1 else _DEARER for ratio in ratios]
        drawn = axes.barh(range(len(bars)), ratios, height=0.6, color=colours)
        words = [f"{ratio:.2f} ({other})" for _, other, ratio in bars]
        axes.bar_label(drawn, words, padding=4, fontsize="small")
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2 * max([1.5, *ratios]))
        axes.margins(y=0.01)
        axes.axvline(1, color="#5b6673", linewidth=1)
        axes.grid(visible=False, axis="y")

    return plots.svg(plot, 10, 1.2 + 0.3 * max(1, len(bars)))

"""A trace as a plot: entropy and keys by position, one line per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvparity.core import plots
from kvparity.relations.trace.lines import Line, Seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYERS = 8  # drawn one by one; of more layers these are spread over the model


def draw(title: str, lines: Sequence[Line], broken: Sequence[int] = ()) -> str:
    """An SVG document of one sequence's rows in order of position.

    Above the entropy of each layer's weights as a share of log(keys), below the number of keys;
    dashed red lines stand at the positions ``broken``.
    """
    rows = sorted(lines, key=lambda line: line.place)
    places = [line.place for line in rows]
    layers = _spread(sorted({seen.layer for line in rows for seen in line.layers}))

    def plot(figure: Figure) -> None:
        figure.suptitle(title)
        above, below = figure.subplots(2, 1, sharex=True)
        above.set_title("entropy, share of log(keys)")
        above.set_ylim(0, 1.05)
        below.set_title("keys attended")
        for number, layer in enumerate(layers):
            seen = [next((s for s in line.layers if s.layer == layer), None) for line in rows]
            look = {
                "color": plots.COLOURS[number % len(plots.COLOURS)],
                # Layers that agree lie on one line; later ones are dashed, so that both are seen.
                "linestyle": "-" if not number else (0, (2 + 1.5 * number, 1.5 * number)),
                "marker": "o" if len(rows) == 1 else "",
                "label": f"layer {layer}",
            }
            above.plot(places, [_share(each) for each in seen], **look)
            below.plot(places, [math.nan if s is None else s.keys for s in seen], **look)
        for axes in (above, below):
            for place in sorted(set(broken)):
                plots.limit(axes, x=place, name=f"broken-{place}")
        below.set_ylim(bottom=0)
        below.set_xlabel("position")
        plots.whole_numbers(below)
        if layers:
            figure.legend(*above.get_legend_handles_labels(), loc="outside right upper")

    return plots.svg(plot, 9, 5.6)


def _share(seen: Seen | None) -> float:
    """NaN, which is a gap in the line, where no weights were reported."""
    weights = None if seen is None else seen.weights
    return math.nan if weights is None or weights.share is None else weights.share


def _spread(layers: Sequence[int]) -> list[int]:
    if len(layers) <= LAYERS:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (LAYERS - 1))] for i in range(LAYERS)]

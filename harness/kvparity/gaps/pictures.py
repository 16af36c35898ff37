"""A comparison as plots: by position, by logprob, how often which d, and the map of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kvparity.core.plots import COLOURS, plain_logarithmic, svg
from kvparity.gaps.curves import Bin, by_logprob, by_position
from kvparity.gaps.token_map import token_map
from kvparity.rollouts.tokens import Tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NAMED_ROWS = 24
"""Rows of the map that have their sequence's name beside them."""
PARTS = 60
"""Of the histogram."""


def pictures(tokens: Tokens) -> Iterator[tuple[str, str]]:
    """(name of a file, SVG), where a token is compared; matplotlib is there."""
    if not tokens.count:
        return
    yield "position.svg", _bins("position in the sequence", by_position(tokens))
    yield "logprob.svg", _bins("logprob of the rollout, nats", by_logprob(tokens))
    yield "histogram.svg", svg(lambda figure: _histogram(figure, tokens), 7.0, 3.6)
    tall = min(8.0, max(2.4, 1.4 + 0.2 * len(tokens.names)))
    yield "map.svg", svg(lambda figure: _map(figure, tokens), 9.0, tall)


def _bins(along: str, bins: tuple[Bin, ...]) -> str:
    def draw(figure: Figure) -> None:
        figure.suptitle(f"d = trainer - rollout, by {along.partition(',')[0]}")
        size, mean = figure.subplots(2, 1, sharex=True)
        at = range(len(bins))
        apart = [each for each in bins if each.max_abs_d]
        for colour, label, values in (
            (COLOURS[1], "max |d|", [each.max_abs_d for each in bins]),
            (COLOURS[0], "mean |d|", [each.mean_abs_d for each in bins]),
        ):
            # 0 has no place on a log scale.
            shown = [value or np.nan for value in values] if apart else values
            size.plot(at, shown, "o-", color=colour, label=label, gid=label)
        if apart:
            size.set_yscale("log")
            low, high = min(it.mean_abs_d for it in apart), max(it.max_abs_d for it in apart)
            plain_logarithmic(size.yaxis, low, high)
        size.set_ylabel("|d|, nats")
        size.legend(loc="upper left", bbox_to_anchor=(1, 1))
        mean.axhline(0, color="#5b6673", linewidth=0.8)
        mean.plot(at, [each.mean_d for each in bins], "o-", color=COLOURS[2], gid="mean d")
        mean.set_ylabel("mean d, nats")
        mean.set_xlabel(along)
        names = [f"{each.low:g} to {each.high:g}\n{each.tokens} tokens" for each in bins]
        mean.set_xticks(at, names)

    return svg(draw, max(7.0, 1.6 + 1.1 * len(bins)), 5.0)


def _histogram(figure: Figure, tokens: Tokens) -> None:
    axes = figure.add_subplot()
    size = np.abs(tokens.d)
    apart = size[size > 0]
    equal = tokens.count - apart.size
    figure.suptitle(f"{tokens.count} tokens; {equal} of them have d = 0 and are not drawn")
    axes.set_xlabel("|d|, nats")
    axes.set_ylabel("tokens")
    if not apart.size:
        return
    low, high = np.log10(apart.min()), np.log10(apart.max())
    edges = np.logspace(low - 0.05, high + 0.05, PARTS + 1)
    for colour, label, sign in (
        (COLOURS[0], "d > 0, likelier for the trainer", 1),
        (COLOURS[1], "d < 0, likelier for the rollout", -1),
    ):
        counts, _ = np.histogram(size[np.sign(tokens.d) == sign], edges)
        axes.stairs(counts, edges, color=colour, label=label, linewidth=1.6, gid=label[:5])
    axes.set_xscale("log")
    plain_logarithmic(axes.xaxis, edges[0], edges[-1])
    axes.legend(loc="upper left")


def _map(figure: Figure, tokens: Tokens) -> None:
    from matplotlib.colors import LogNorm

    of = token_map(tokens)
    cells = np.where(of.worst >= 0, np.abs(tokens.d)[of.worst], np.nan)
    axes = figure.add_subplot()
    rows, columns = of.worst.shape
    figure.suptitle("largest |d| of each cell")
    axes.set_title(
        f"{rows} of {len(tokens.names)} sequences, {of.step} position(s) a cell; "
        "white: d = 0, grey: not compared",
        fontsize="small",
    )
    axes.grid(False)
    axes.set_facecolor("#c6ccd3")
    edges = (of.first - 0.5, of.first + columns * of.step - 0.5)
    place = (*edges, rows - 0.5, -0.5)
    zero = np.where(cells == 0, 1.0, np.nan)
    axes.imshow(zero, cmap="gray", vmin=0, vmax=1, extent=place, aspect="auto")
    apart = cells[cells > 0]
    if apart.size:
        low, high = float(apart.min()), float(apart.max())
        norm = LogNorm(low, high if high > low else low * 1.01)
        cells[cells == 0] = np.nan
        drawn = axes.imshow(
            cells,
            cmap="viridis_r",
            norm=norm,
            extent=place,
            aspect="auto",
            interpolation="nearest",
        )
        bar = figure.colorbar(drawn, ax=axes, label="|d|, nats")
        plain_logarithmic(bar.ax.yaxis, low, high)
    axes.set_xlabel("position in the sequence")
    axes.set_ylabel("sequence")
    names = [tokens.names[each][:18] for each in of.sequences]
    if rows <= MOST_NAMED_ROWS:
        axes.set_yticks(range(rows), names)
    else:
        axes.set_yticks([])
        axes.set_ylabel("sequences, in the order of the recording")

"""Plots as SVG text. matplotlib draws them; it comes with the extra ``report``.

It is imported when something is drawn: no other part of a command needs it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#1f6fb4", "#d1641b", "#2b8a57", "#8a4fbf", "#b3273e", "#6b5b2a", "#0f8b8d", "#555f6b")
"""For lines side by side, in their order."""
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9aa5b1",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.titleweight": "bold",
    "font.size": 9.0,
    "grid.color": "#e3e7ec",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "kvparity",  # the same plot is the same file
    "text.parse_math": False,  # a name may hold a $
    "xtick.color": "#5b6673",
    "ytick.color": "#5b6673",
}


def missing(what: str) -> str | None:
    """Why ``what`` cannot be drawn here, to be asked before anything is computed; or None."""
    try:
        import_module("matplotlib.figure")
    except ImportError as error:
        return (
            f"{what} is drawn by matplotlib, which cannot be imported ({error}): "
            'pip install "kvparity[report]"'
        )
    return None


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What ``draw`` puts into a figure of ``width`` x ``height`` inches, as an SVG document."""
    from matplotlib import style
    from matplotlib.figure import Figure

    out = io.StringIO()
    with style.context(_STYLE), warnings.catch_warnings():
        # The viewer's fonts draw the letters, which may be of any script.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(width, height))
        draw(figure)
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def whole_numbers(axes: Axes) -> None:
    """Label whole numbers only along the x axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def plain_logarithmic(axis: Axis, low: float, high: float) -> None:
    """Label an axis that is logarithmic from ``low`` to ``high`` with numbers, not with powers in
    the mark-up that is turned off here."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    few = high < 100 * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def limit(axes: Axes, *, x: float | None = None, y: float | None = None, name: str) -> None:
    """A dashed line across at ``x`` or ``y``, a bound or a fault; ``name`` is its id in the SVG."""
    if y is not None:
        axes.axhline(y, color="#b3273e", linestyle="--", linewidth=1.2, gid=name)
    if x is not None:
        axes.axvline(x, color="#b3273e", linestyle="--", linewidth=1.2, gid=name)

"""Drift against the number of coded layers, one line per codec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvparity.core import plots
from kvparity.labs.codec.budget import Measure
from kvparity.labs.codec.document import CodecDocument, CodecReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = "osD^vP*X"  # lines that lie on each other still differ by their marks
_PANELS: tuple[tuple[Measure, str], ...] = (
    ("max_abs_dlogp", "max |d logprob|"),
    ("approx_kl0", "approx_kl0"),
)


def draw(report: CodecDocument) -> str:
    """An SVG document of two panels, one line per codec.

    The vertical axis is logarithmic above the lowest drift's decade, so that exactly 0 is on it.
    """
    codecs = report.codecs

    def plot(figure: Figure) -> None:
        figure.suptitle(f"{report.contract['name']}: drift by coded layers")
        for axes, (measure, title) in zip(figure.subplots(1, 2), _PANELS, strict=True):
            axes.set_title(title)
            _panel(axes, codecs, measure)
        lines, names = axes.get_legend_handles_labels()
        about = (
            f"first k of {len(codecs[0].layers)} layers coded, {report.run.tokens} "
            f"tokens, {report.run.execution}; against the same run without a codec"
        )
        figure.legend(lines, names, title=about, loc="outside lower center", ncols=2)

    return plots.svg(plot, 10, 4.6 + 0.22 * math.ceil(len(codecs) / 2))


def _panel(axes: Axes, codecs: Sequence[CodecReport], measure: Measure) -> None:
    limits = {
        codec.budget.limit
        for codec in codecs
        if codec.budget is not None and codec.budget.measure == measure
    }
    values = [float(getattr(point, measure)) for codec in codecs for point in codec.depth]
    least = min((value for value in [*values, *limits] if value > 0), default=1e-6)
    axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(least)), linscale=0.5)
    axes.yaxis.set_major_formatter("{x:g}")
    for number, codec in enumerate(codecs):
        axes.plot(
            [float(getattr(point, measure)) for point in codec.depth],
            color=plots.COLOURS[number % len(plots.COLOURS)],
            marker=_MARKS[number % len(_MARKS)],
            gid=f"{measure} {codec.name}",
            label=f"{codec.name}: {codec.bytes_per_token.ratio:.3f} of the bytes",
        )
    for limit in sorted(limits):
        plots.limit(axes, y=limit, name=f"budget-{limit:g}")
        axes.annotate(
            f"budget {limit:g}", (1, limit), (-4, 3), ha="right", fontsize="small",
            xycoords=("axes fraction", "data"), textcoords="offset points",
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coded layers")
    plots.whole_numbers(axes)

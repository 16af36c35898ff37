"""Drift against the number of coded layers, as SVG, drawn without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDE, HIGH = 380, 260  # of one plot area
LEFT, TOP, GAP, BOTTOM = 78, 76, 96, 64
ROW = 20  # of the legend
_COLOURS = ("#1f6fb4", "#d1641b", "#2b8a57", "#8a4fbf", "#b3273e", "#6b5b2a", "#0f8b8d", "#555f6b")
_MARKS = ("circle", "square", "diamond", "triangle")
_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1c2530}"
    ".t{font-size:15px;font-weight:600}.s{fill:#5b6673;font-size:11px}"
    ".g{stroke:#e3e7ec;stroke-width:1}.a{stroke:#9aa5b1;stroke-width:1}"
    ".l{fill:none;stroke-width:2}.b{stroke:#b3273e;stroke-width:1.2;stroke-dasharray:5 4}"
)
_PANELS = (("max_abs_dlogp", "max |d logprob|"), ("approx_kl0", "approx_kl0"))


def draw(report: dict[str, Any]) -> str:
    """An SVG document of two panels, one line per codec, from the JSON document.

    The vertical axis is logarithmic; exactly 0 has a line of its own below it.
    """
    codecs = report["codecs"]
    width = LEFT + 2 * WIDE + GAP + 28
    height = TOP + HIGH + BOTTOM + ROW * math.ceil(len(codecs) / 2) + 8
    name = report["contract"]["name"]
    body = [
        f'<text class="t" x="24" y="28">{escape(name)}: drift by coded layers</text>',
        f'<text class="s" x="24" y="48">first k of {len(codecs[0]["layers"])} layers coded, '
        f"{report['run']['tokens']} tokens, {escape(report['run']['execution'])}; against the same "
        "run without a codec</text>",
    ]
    for number, (measure, title) in enumerate(_PANELS):
        body += _panel(codecs, measure, title, LEFT + number * (WIDE + GAP))
    body += _legend(codecs)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


class _Scale:
    """From a drift to a height: decades above, 0 on the bottom line."""

    def __init__(self, values: Sequence[float]) -> None:
        positive = [value for value in values if value > 0] or [1e-6, 1e-5]
        self.low = math.floor(math.log10(min(positive)))
        self.high = max(math.ceil(math.log10(max(positive))), self.low + 1)
        self.floor = 26.0  # between the lowest decade and 0

    def y(self, value: float) -> float:
        if value <= 0:
            return TOP + HIGH
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return TOP + (HIGH - self.floor) * (1 - share)

    def decades(self) -> list[int]:
        step = max(1, math.ceil((self.high - self.low) / 6))
        return list(range(self.low, self.high + 1, step))


def _panel(codecs: Sequence[dict[str, Any]], measure: str, title: str, left: int) -> list[str]:
    layers = len(codecs[0]["depth"]) - 1
    limits = [c["budget"]["limit"] for c in codecs if _has_budget(c, measure)]
    values = [float(point[measure]) for codec in codecs for point in codec["depth"]]
    scale = _Scale([*values, *limits])

    def x(k: int) -> float:
        return left + WIDE * k / max(layers, 1)

    out = [f'<text x="{left}" y="{TOP - 10}">{escape(title)}</text>']
    for decade in scale.decades():
        y = scale.y(10.0**decade)
        out.append(f'<line class="g" x1="{left}" y1="{y:.1f}" x2="{left + WIDE}" y2="{y:.1f}"/>')
        out.append(_label(left - 8, y + 4, f"1e{decade:+03d}", "end"))
    bottom = TOP + HIGH
    out.append(f'<line class="a" x1="{left}" y1="{bottom}" x2="{left + WIDE}" y2="{bottom}"/>')
    out.append(_label(left - 8, bottom + 4, "0", "end"))
    for k in _ticks(layers):
        out.append(
            f'<line class="a" x1="{x(k):.1f}" y1="{bottom}" x2="{x(k):.1f}" y2="{bottom + 4}"/>'
        )
        out.append(_label(x(k), bottom + 18, str(k), "middle"))
    out.append(_label(left + WIDE / 2, bottom + 36, "coded layers", "middle"))
    for limit in sorted(set(limits)):
        y = scale.y(limit)
        out.append(f'<line class="b" x1="{left}" y1="{y:.1f}" x2="{left + WIDE}" y2="{y:.1f}"/>')
        out.append(_label(left + WIDE - 4, y - 5, f"budget {limit:g}", "end"))
    for number, codec in enumerate(codecs):
        points = [(x(k), scale.y(float(p[measure]))) for k, p in enumerate(codec["depth"])]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        colour = _COLOURS[number % len(_COLOURS)]
        out.append(f'<path class="l" stroke="{colour}" d="M{path}"/>')
        if layers <= 40:
            out += [_mark(number, px, py) for px, py in points]
    return out


def _has_budget(codec: dict[str, Any], measure: str) -> bool:
    return codec["budget"] is not None and codec["budget"]["measure"] == measure


def _ticks(layers: int) -> list[int]:
    step = max(1, math.ceil(layers / 8))
    return list(range(0, layers + 1, step))


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="s" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mark(number: int, x: float, y: float) -> str:
    """Lines that lie on each other still differ by their marks."""
    colour, r = _COLOURS[number % len(_COLOURS)], 4.0
    kind = _MARKS[number % len(_MARKS)]
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{colour}"/>'
    if kind == "square":
        return (
            f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}" '
            f'fill="{colour}"/>'
        )
    corners = [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
    if kind == "triangle":
        corners = [(0, -1.3), (1.2, 1), (-1.2, 1)]
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" fill="{colour}"/>'


def _legend(codecs: Sequence[dict[str, Any]]) -> list[str]:
    out = []
    top = TOP + HIGH + BOTTOM
    for number, codec in enumerate(codecs):
        x = LEFT + (number % 2) * (WIDE + GAP)
        y = top + ROW * (number // 2)
        colour = _COLOURS[number % len(_COLOURS)]
        ratio = codec["bytes_per_token"]["ratio"]
        out.append(f'<path class="l" stroke="{colour}" d="M{x} {y}h26"/>')
        out.append(_mark(number, x + 13, y))
        out.append(
            f'<text x="{x + 36}" y="{y + 4}">{escape(codec["name"])} '
            f'<tspan class="s">{ratio:.3f} of the bytes</tspan></text>'
        )
    return out

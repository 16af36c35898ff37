"""A trace as a picture: entropy and keys by position, SVG drawn without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from kvparity.relations.trace.lines import Line

WIDTH, PLOT, TOP, LEFT, RIGHT, GAP = 860, 190, 58, 58, 150, 76
COLOURS = ("#2f6fab", "#c05c21", "#3c8a57", "#8a4fa3", "#a8862a", "#4d5966", "#b03a5b", "#2f9c9c")
LAYERS = 8  # drawn one by one; of more layers these are spread over the model
_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1c2530}"
    ".t{font-size:15px;font-weight:600}.s{fill:#5b6673;font-size:11px}"
    ".a{stroke:#6b7785;stroke-width:1}.g{stroke:#e3e8ee;stroke-width:1}"
    ".l{fill:none;stroke-width:1.8;stroke-linejoin:round}.b{stroke:#c02b2b;stroke-width:1.2;"
    "stroke-dasharray:4 3}"
)


def draw(title: str, lines: Sequence[Line], broken: Sequence[int] = ()) -> str:
    """An SVG document of one sequence's rows in order of position.

    Above the entropy of each layer's weights as a share of log(keys), below the number of keys;
    dashed red lines stand at the positions ``broken``.
    """
    rows = sorted(lines, key=lambda line: line.place)
    layers = _spread(sorted({seen.layer for line in rows for seen in line.layers}))
    low, high = (rows[0].place, rows[-1].place) if rows else (0, 1)
    high = max(high, low + 1)
    shares: dict[int, list[tuple[int, float]]] = {layer: [] for layer in layers}
    keys: dict[int, list[tuple[int, float]]] = {layer: [] for layer in layers}
    for line in rows:
        for seen in line.layers:
            if seen.layer not in keys:
                continue
            keys[seen.layer].append((line.place, float(seen.keys)))
            share = None if seen.weights is None else seen.weights.share
            if share is not None and math.isfinite(share):
                shares[seen.layer].append((line.place, share))
    most = max([value for points in keys.values() for _, value in points] or [1.0])
    height = TOP + 2 * PLOT + 2 * GAP
    body = [
        f'<text class="t" x="{LEFT}" y="24">{escape(title)}</text>',
        *_panel("entropy, share of log(keys)", TOP, shares, (low, high), (0.0, 1.0), broken),
        *_panel("keys attended", TOP + PLOT + GAP, keys, (low, high), (0.0, most), broken),
        *_legend(layers),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


def _spread(layers: Sequence[int]) -> list[int]:
    if len(layers) <= LAYERS:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (LAYERS - 1))] for i in range(LAYERS)]


def _panel(
    name: str,
    top: int,
    series: dict[int, list[tuple[int, float]]],
    across: tuple[int, int],
    up: tuple[float, float],
    broken: Sequence[int],
) -> list[str]:
    right, bottom = WIDTH - RIGHT, top + PLOT

    def x(place: float) -> float:
        return LEFT + (place - across[0]) / (across[1] - across[0]) * (right - LEFT)

    def y(value: float) -> float:
        return bottom - (value - up[0]) / (up[1] - up[0]) * PLOT

    parts = [f'<text x="{LEFT}" y="{top - 10}">{escape(name)}</text>']
    for value in _ticks(up[1]):
        parts.append(
            f'<path class="g" d="M{LEFT} {y(value):.1f}H{right}"/><text class="s" '
            f'x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for place in _places(across):
        parts.append(
            f'<text class="s" x="{x(place):.1f}" y="{bottom + 18}" text-anchor="middle">{place}'
            "</text>"
        )
    parts.append(
        f'<text class="s" x="{(LEFT + right) / 2:.0f}" y="{bottom + 36}" text-anchor="middle">'
        "position</text>"
    )
    parts += [
        f'<path class="b" d="M{x(place):.1f} {top}V{bottom}"/>'
        for place in sorted(set(broken))
        if across[0] <= place <= across[1]
    ]
    for number, points in enumerate(series.values()):
        if not points:
            continue
        colour = COLOURS[number % len(COLOURS)]
        # Layers that agree lie on one line; later ones are dashed, so that both are seen.
        dash = "" if not number else f' stroke-dasharray="{4 + 3 * number} {3 * number}"'
        path = "L".join(f"{x(place):.1f} {y(value):.1f}" for place, value in points)
        parts.append(f'<path class="l" stroke="{colour}"{dash} d="M{path}"/>')
        if len(points) == 1:
            (place, value) = points[0]
            parts.append(f'<circle cx="{x(place):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>')
    parts.append(f'<path class="a" fill="none" d="M{LEFT} {top}V{bottom}H{right}"/>')
    return parts


def _legend(layers: Sequence[int]) -> list[str]:
    left = WIDTH - RIGHT + 20
    parts = []
    for number, layer in enumerate(layers):
        row = TOP + 8 + 22 * number
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<path d="M{left} {row}h26" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{left + 34}" y="{row + 4}">layer {layer}</text>'
        )
    return parts


def _ticks(top: float) -> list[float]:
    """Three to six round values from 0 up to ``top``."""
    if top <= 0:
        return [0.0]
    step = 10.0 ** math.floor(math.log10(top))
    for factor in (0.2, 0.25, 0.5, 1.0):
        if top / (step * factor) <= 5:
            step *= factor
            break
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def _places(across: tuple[int, int]) -> list[int]:
    """At most seven whole positions, both ends among them."""
    low, high = across
    count = min(6, high - low)
    return [low + round(i * (high - low) / count) for i in range(count + 1)]

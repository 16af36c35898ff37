"""The price table as a picture: one bar per case, drawn without any library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from kvparity.labs.bench.measure import Measured, price

ROW, LEFT, WIDTH, PAD = 26, 300, 420, 24
_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1c2530}"
    ".t{font-size:15px;font-weight:600}.s{fill:#5b6673;font-size:11px}"
)
_CHEAPER, _DEARER = "#7fb389", "#d98c6a"


def draw(title: str, found: Sequence[Measured]) -> str:
    """An SVG document; a bar up to the line is as fast as the fastest other way."""
    bars = []
    for each in found:
        cost = price(each)
        if cost is not None:
            bars.append((each.case.name, *cost))
    longest = max([1.5, *(ratio for _, _, ratio in bars)])
    unit = WIDTH / longest
    one = LEFT + unit
    body = [f'<text class="t" x="{PAD}" y="{PAD}">{escape(title)}</text>']
    body.append(
        f'<text class="s" x="{PAD}" y="{PAD + 18}">times as long as the fastest other way; '
        "the line is 1</text>"
    )
    top = PAD + 34
    bottom = top + len(bars) * ROW
    body.append(f'<path d="M{one:.1f} {top - 4}V{bottom}" stroke="#c3cad2"/>')
    for i, (name, other, ratio) in enumerate(bars):
        y = top + i * ROW
        fill = _CHEAPER if ratio <= 1 else _DEARER
        body.append(
            f'<text x="{PAD}" y="{y + 14}">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{y + 3}" width="{unit * ratio:.1f}" height="14" rx="2" '
            f'fill="{fill}"/>'
            f'<text class="s" x="{LEFT + unit * ratio + 6:.1f}" y="{y + 14}">{ratio:.2f} '
            f"({escape(other)})</text>"
        )
    width, height = LEFT + WIDTH + 190, bottom + PAD
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )

"""A verdict as a small SVG picture for a README."""

from __future__ import annotations

from html import escape

from kvparity.plan.results import Outcome
from kvparity_contracts.plain import plain

COLOURS = {"holds": "#1a7f37", "differs": "#cf222e", "void": "#9a6700", "error": "#cf222e"}
"""Of verdicts, wherever they are shown in colour; each is read on white, and white on it."""
_WIDE, _EDGE = 6.6, 6
"""Pixels of a character of 11 px, and of the space beside a word."""

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{title}">
<title>{title}</title>
<rect width="{width}" height="20" rx="3" fill="#444"/>
<path d="M{left} 0h{inner}a3 3 0 0 1 3 3v14a3 3 0 0 1 -3 3H{left}z" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">
<text x="{at_label}" y="14" textLength="{label_wide}">{label}</text>
<text x="{at_word}" y="14" textLength="{word_wide}">{word}</text>
</g>
</svg>
"""


def badge(name: str, verdict: Outcome) -> str:
    """The picture: the contract's name, and the verdict in its colour."""
    label = plain(name, 80)
    label_wide, word_wide = (round(len(each) * _WIDE) for each in (label, verdict))
    left, right = label_wide + 2 * _EDGE, word_wide + 2 * _EDGE
    return _SVG.format(
        width=left + right,
        left=left,
        inner=right - 3,
        colour=COLOURS[verdict],
        title=escape(f"{label}: {verdict}"),
        label=escape(label),
        word=verdict,
        label_wide=label_wide,
        word_wide=word_wide,
        at_label=left / 2,
        at_word=left + right / 2,
    )

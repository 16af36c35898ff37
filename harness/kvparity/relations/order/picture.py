"""Trees as pictures: SVG of the folded shape, drawn without any library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kvparity.relations.order.difference import shorten
from kvparity.relations.order.shape import Folded, Kind, Run, fold
from kvparity.relations.order.tree import SumTree

ROW, COLUMN, PAD, BOX = 40, 236, 24, 30
LEVELS, ROWS = 9, 48  # of nesting, and of boxes in one picture
_LOOK: dict[Kind, tuple[str, str]] = {
    "up": ("#dbe9f6", "left to right"),
    "down": ("#fbe3d6", "right to left"),
    "fused": ("#e9dff3", "at once"),
}
_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1c2530}"
    ".t{font-size:15px;font-weight:600}.s{fill:#5b6673;font-size:11px}"
    ".l{fill:none;stroke:#9aa5b1;stroke-width:1.3}.b{stroke:#6b7785;stroke-width:1}"
)


@dataclass(frozen=True)
class Box:
    """One drawn run: where it stands, what it says, and the index of the box it is added into."""

    level: int
    row: float
    parent: int | None
    title: str
    detail: str
    fill: str


def draw(panels: Sequence[tuple[str, SumTree]]) -> str:
    """An SVG document with a picture of each titled tree, one below the other.

    Each box is a sum or a run of like sums; what stands to the right of a box is added in it, top
    to bottom in the order of the terms.
    """
    body: list[str] = []
    top, width = float(PAD), 0.0
    for title, tree in panels:
        boxes = _boxes(fold(tree))
        rows = max(box.row for box in boxes) + 1
        width = max(width, (max(box.level for box in boxes) + 1) * COLUMN + 2 * PAD)
        body.append(f'<text class="t" x="{PAD}" y="{top + 14:.0f}">{escape(title)}</text>')
        body.append(
            f'<text class="s" x="{PAD}" y="{top + 32:.0f}">{tree.n} terms, depth {tree.depth}, '
            f"{tree.fingerprint}</text>"
        )
        body += _panel(boxes, top + 44)
        top += 44 + rows * ROW + PAD
    width = max(width, 420.0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{top:.0f}" '
        f'viewBox="0 0 {width:.0f} {top:.0f}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


def _boxes(folded: Folded) -> list[Box]:
    """Depth first; a run is drawn once, by its first sum."""
    tree = folded.tree
    if not tree.nodes:
        return [Box(0, 0, None, "one term", "", "#f2f4f7")]
    found: list[Box] = []
    stack: list[tuple[Run, int, int | None]] = [(Run(0, 1, folded.root, folded.root), 0, None)]
    row = 0
    while stack:
        run, level, parent = stack.pop()
        if row >= ROWS:
            found.append(Box(level, row, parent, "…", "the rest is not drawn", "#f2f4f7"))
            break
        if run.first < tree.n:
            title, fill = "1 term" if run.count == 1 else f"{run.count} terms", "#f2f4f7"
            runs: tuple[Run, ...] = ()
        else:
            fill, way = _LOOK[folded.kinds[run.first]]
            sums = "sum of" if run.count == 1 else f"{run.count} sums of"
            title, runs = f"{sums} {tree.sizes[run.first]}, {way}", folded.runs[run.first]
        detail = _which(tree, run)
        if runs and level + 1 >= LEVELS:
            detail, runs = f"{detail} (not opened)", ()
        found.append(Box(level, row, parent, title, detail, fill))
        me = len(found) - 1
        # The first child stands on its parent's row, the others below.
        row += 0 if runs else 1
        stack += [(child, level + 1, me) for child in reversed(runs)]
    return found


def _which(tree: SumTree, run: Run) -> str:
    """The terms of a run, or of its first sum where there are many."""
    if run.first < tree.n and run.count > 1:
        adjacent = run.last - run.first + 1 == run.count
        between = ".." if adjacent else ", " if run.count == 2 else ", …, "
        return f"{run.first}{between}{run.last}"
    first = shorten(tree.terms(run.first))
    if run.count == 1:
        return first
    low, high = tree.spans[run.first][0], tree.spans[run.last][1]
    return (
        f"{first.removesuffix(', …')}, …"
        if tree.sizes[run.first] * run.count != high - low + 1
        else f"{low}..{high}"
    )


def _panel(boxes: Sequence[Box], top: float) -> list[str]:
    lines, shapes = [], []
    for box in boxes:
        x, y = PAD + box.level * COLUMN, top + box.row * ROW
        if box.parent is not None:
            parent = boxes[box.parent]
            px, py = PAD + parent.level * COLUMN + COLUMN - 36, top + parent.row * ROW + BOX / 2
            bend = (px + x) / 2
            lines.append(
                f'<path class="l" d="M{px:.0f} {py:.0f}C{bend:.0f} {py:.0f} {bend:.0f} '
                f'{y + BOX / 2:.0f} {x:.0f} {y + BOX / 2:.0f}"/>'
            )
        shapes.append(
            f'<rect class="b" x="{x}" y="{y:.0f}" width="{COLUMN - 36}" height="{BOX}" rx="5" '
            f'fill="{box.fill}"/><text x="{x + 8}" y="{y + 13:.0f}">{escape(box.title)}</text>'
            f'<text class="s" x="{x + 8}" y="{y + 25:.0f}">{escape(box.detail)}</text>'
        )
    return lines + shapes

"""Every planted fault of a decode kernel, and the table of what an order report says of it.

python tests/harness/relations/order/order_faults.py     prints the table that docs/order.md holds
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).parents[4]
    sys.path[:0] = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]

import torch
from order_pairs import CALLS, How, pair, subject

from kvparity.relations.order import OrderReport, order_report
from kvparity.relations.order.report import PARTS

HOW = How(tile=8, split=32)
KEYS = 35  # a tile edge and a split edge are crossed

FAULTS: dict[str, tuple[str, dict[str, object]]] = {
    "none": ("no fault", {}),
    "tile": ("another tile", {"tile": 16}),
    "reverse": ("tiles walked from the end", {"reverse": True}),
    "split": ("another split", {"split": 16}),
    "ragged": ("as many splits whatever the length", {"ragged": 3}),
    "products": ("the head dimension from the end", {"products": True}),
    "reciprocal": ("times 1 / l instead of division by l", {"reciprocal": True}),
    "by_data": ("another order where all scores are equal", {"by_data": True}),
    "shuffled": ("splits merged as they come, as with atomics", {"split": 8, "shuffled": True}),
    "columns": ("two columns of V in another order", {"columns": True}),
    "wide": ("P V kept in float64", {"wide": True}),
    "natural": ("exp instead of exp2", {"natural": True}),
}


@cache
def found(name: str) -> OrderReport:
    """The report on the pair whose decode has the fault."""
    CALLS[0] = 0
    return order_report(subject(pair(HOW, **FAULTS[name][1])), KEYS, rows=2, draws=3)


def table() -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| in decode | verdict | " + " | ".join(PARTS) + " | replay | random calls |",
        "|---|---|" + "---|" * (len(PARTS) + 2),
    ]
    for name, (words, _) in FAULTS.items():
        report = found(name)
        statuses = [part.status for part in report.parts]
        replay = "—" if not report.replayed else "as the tree"
        if not all(done.complete for done in report.replayed):
            replay = "other bits"
        calls = "agree" if report.drawn.equal == report.drawn.calls else "differ"
        cells = [words, f"`{report.verdict}`", *statuses, replay, calls]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n".join(table()))

"""A report as one HTML file that opens offline: curves, a map of all tokens, each to be clicked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources

import numpy as np

from kvparity.gaps.explain import Explanation
from kvparity.gaps.report import DriftReport, document, plain_document, token
from kvparity.gaps.spelling import Spelling, line
from kvparity.gaps.text import explained_lines
from kvparity.gaps.token import Token
from kvparity.gaps.token_map import token_map
from kvparity.rollouts.tokens import Tokens
from kvparity_contracts.json_types import JsonObject, JsonValue

WORST_SEQUENCES = 20


def page(
    found: DriftReport,
    tokens: Tokens,
    names: Mapping[str, Mapping[str, float]],
    spelling: Spelling | None = None,
    explained: Explanation | None = None,
) -> str:
    """The file's text. It holds at most 120 × 256 tokens, whatever the recording has."""
    whole = dict(document(found, names))
    whole.pop("by_sequence")
    farthest = sorted(found.by_sequence, key=lambda each: -each.mean_abs_d)[:WORST_SEQUENCES]
    data = {
        "report": whole,
        "worst": [_clicked(each) for each in found.worst],
        "sequences": [asdict(each) for each in farthest],
        "map": _map(tokens, spelling),
        "explained": [] if explained is None else list(explained_lines(explained)),
    }
    text = resources.files("kvparity.gaps").joinpath("page.html").read_text(encoding="utf-8")
    # A name that ends the script early would be read as markup.
    inside = json.dumps(plain_document(data), allow_nan=False).replace("<", "\\u003c")
    return text.replace("/*DATA*/", inside)


def _map(tokens: Tokens, spelling: Spelling | None) -> JsonObject:
    """Rows of cells ``[largest |d|, its token's number]``, null where nothing is compared."""
    found, size = token_map(tokens), np.abs(tokens.d)
    rows: list[JsonValue] = []
    shown: list[JsonValue] = []
    for row in found.worst.tolist():
        cells: list[JsonValue] = []
        for worst in row:
            if worst < 0:
                cells.append(None)
                continue
            cells.append([float(size[worst]), len(shown)])
            shown.append(_clicked(token(tokens, worst, spelling)))
        rows.append(cells)
    apart = size[size > 0]
    low, high = (float(np.log10(it)) for it in (apart.min(), apart.max())) if apart.size else (0, 0)
    return {
        "rows": rows,
        "tokens": shown,
        "columns": found.worst.shape[1],
        "step": found.step,
        "sequences": len(tokens.names),
        "low": low,
        "high": high,
    }


def _clicked(each: Token) -> JsonObject:
    bits = {
        f"{side}_bits": f"0x{np.float32(value).view(np.uint32):08x}"
        for side, value in (("rollout", each.rollout), ("trainer", each.trainer))
    }
    known = {name: value for name, value in asdict(each).items() if name != "text"}
    if each.text is not None:
        bits["text"] = line(each)
    return {**known, **bits, "before": list(each.before), "after": list(each.after)}

"""Do two sets of whole rows have the same bits? Prints its answer as JSON.

    python row_bits.py A.safetensors B.safetensors

Each file: ``rows`` float32 ``[rows, width]``: logits, or O and LSE of a kernel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def steps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many float32 steps apart, -0 and +0 being two neighbours."""
    x, y = (np.ascontiguousarray(each).view(np.int32).astype(np.int64) for each in (a, b))
    # Patterns of negative numbers count down from -2**31 (-0): turned round, they count up to -1.
    x, y = (np.where(each < 0, -(2**31) - 1 - each, each) for each in (x, y))
    return np.abs(x - y)


def answer(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``differing``: the rows by number; ``unfinite``: rows with a NaN, or an Inf, on a side.

    An Inf in a row of logits may be meant (a masked token): the caller knows what a row is.
    """
    left, right = a["rows"], b["rows"]
    if left.shape != right.shape or not len(left):
        return {"equal": None, "rows": [len(left), len(right)]}
    off = left.view(np.uint32) != right.view(np.uint32)
    differing = np.flatnonzero(off.any(axis=1))
    finite = np.isfinite(left) & np.isfinite(right)
    whole = finite.all(axis=1)
    first = None
    if len(differing):
        row = int(differing[0])
        column = int(np.flatnonzero(off[row])[0])
        first = {
            "row": row,
            "column": column,
            "bits": [f"0x{x.view(np.uint32)[row, column]:08x}" for x in (left, right)],
            "steps": int(steps(left, right)[row, column]),
        }
    return {
        "equal": not len(differing) and bool(finite.all()),
        "rows": len(left),
        "differing_rows": len(differing),
        "differing_elements": int(off.sum()),
        "differing": differing.tolist(),
        "nan": np.flatnonzero((np.isnan(left) | np.isnan(right)).any(axis=1)).tolist(),
        "unfinite": np.flatnonzero(~whole).tolist(),
        "max_ulp": int(steps(left, right)[whole].max()) if whole.any() else None,
        "first": first,
    }


if __name__ == "__main__":
    print(json.dumps(answer(*(load_file(name) for name in sys.argv[1:3]))))

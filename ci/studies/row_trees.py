"""In which order does compiled attention add its weights along a row?

    python ci/studies/row_trees.py          write what is read to kvparity_kernels/row_trees.json

Kernels are compiled, not run. Rows of other versions of Triton are kept; those of the installed one
are read anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product

from kvparity.relations.audit.request import Request, Shape
from kvparity.relations.audit.row_tree import read
from kvparity.relations.audit.side import read_all
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.row_trees import FILE, RowKey
from kvparity_kernels.rules import triton_version

ARCHITECTURES = (
    "sm_80",
    "sm_89",
    "sm_90",
)  # sm_100 adds two numbers at once, which is not followed
FORMATS = {"bfloat16": 16, "float32": 32}
TILES = (32, 64)
DIMS = (16, 64)
HEADS = (8, 2)


def requests(key: RowKey) -> Iterator[Request]:
    """Both kernels that add such rows."""
    dtype = next(name for name, bits in FORMATS.items() if bits == key.bits)
    order = ReductionOrder(128, key.tile, key.block_m, key.num_warps)
    shape = Shape(*HEADS, key.head_dim, execution=dtype, kv_cache=dtype)
    yield Request("prefill", key.architecture, shape, order)
    yield Request("decode", key.architecture, shape, order)


def keys() -> Iterator[RowKey]:
    """What is read: base rows, and base warps or twice as many."""
    base = ReductionOrder()
    warps = (base.num_warps, 2 * base.num_warps)
    every = product(ARCHITECTURES, FORMATS.values(), warps, TILES, DIMS)
    for architecture, bits, count, tile, dim in every:
        yield RowKey(architecture, triton_version(), bits, base.block_m, count, tile, dim)


def main() -> None:
    """Read and write."""
    asked = {key: tuple(requests(key)) for key in keys()}
    sides = read_all(each for pair in asked.values() for each in pair)
    rows = [
        row
        for row in json.loads(FILE.read_text())["rows"]
        if row["key"]["triton"] != triton_version()
    ]
    for key, pair in asked.items():
        found = {read(sides[each].walk) for each in pair}
        known = found.pop()
        if found or known is None:
            print(f"not read: {key}")
            continue
        rows.append({"key": asdict(key), "tree": asdict(known)})
    text = ",\n".join("  " + json.dumps(row) for row in rows)
    FILE.write_text(f'{{"rows": [\n{text}\n]}}\n')
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()

"""Compile every operation for GPUs that are not there, and print what came out as JSON.

A program of its own, not a test: kernels are either interpreted or compiled in one process. Run
with ``TRITON_INTERPRET=0``; the arguments are architectures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
from compile_common import empty, facts

from kvparity.relations.audit.capture import Launch, captured
from kvparity_kernels.digest import row_digest
from kvparity_kernels.embedding import embed
from kvparity_kernels.linear import linear
from kvparity_kernels.logprob import logprob
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides import rows
from kvparity_kernels.rope import rope
from kvparity_kernels.swiglu import swiglu

FLOAT32, INT64, ORDER = torch.float32, torch.int64, ReductionOrder()
CALLS: dict[str, Callable[[], object]] = {
    "bf16": lambda: (
        linear(empty(5, 512), empty(1000, 512), empty(1000), order=ORDER),
        rms_norm(empty(2, 5000), empty(5000), 1e-6),
        rope(empty(2, 6, 96), empty(2, dtype=INT64), empty(48, dtype=FLOAT32)),
        swiglu(empty(2, 3000), empty(2, 3000)),
        embed(empty(2, dtype=INT64), empty(1000, 512)),
        logprob(empty(2, 50257), empty(2, dtype=INT64), 1.0),
        rows.matmul(empty(2, 5, 512), empty(2, 512, 100), twin=False),
        rows.row_sum(empty(2, 3000), twin=False),
        rows.softmax(empty(2, 3000), twin=False),
        row_digest(empty(2, 50257), twin=False),
    ),
    "fp32": lambda: (
        linear(empty(5, 512, dtype=FLOAT32), empty(1000, 512, dtype=FLOAT32), None, order=ORDER),
        rows.matmul(empty(2, 5, 512, dtype=FLOAT32), empty(2, 512, 100, dtype=FLOAT32), twin=False),
        rows.softmax(empty(2, 3000, dtype=FLOAT32), log=True, twin=False),
    ),
}


def launches() -> dict[str, Launch]:
    """``linear bf16`` and the like."""
    found = {}
    for dtype, call in CALLS.items():
        with captured() as seen:
            call()
        found |= {f"{each.kernel.name.split('.')[1]} {dtype}": each for each in seen}
    return found


def main() -> None:
    """Print ``{launch: {arch: facts}}``, and ``rotate`` again with contraction allowed."""
    archs, found = sys.argv[1:], launches()
    result = {name: {arch: facts(launch, arch) for arch in archs} for name, launch in found.items()}
    loose = facts(found["rotate bf16"], archs[0], fusion=True)
    json.dump({**result, "rotate contracted": {archs[0]: loose}}, sys.stdout)


if __name__ == "__main__":
    main()

"""One product of matrices in a kernel of its own, so that nothing but the instruction is asked."""

from __future__ import annotations

from kvparity_kernels import launch as _launch  # noqa: F401 - settles how kernels are decorated

# isort: split
import triton
import triton.language as tl


@triton.jit
def multiply(
    A, B, C, OUT, ROWS: tl.constexpr, SIDE: tl.constexpr, K: tl.constexpr, TF32: tl.constexpr
):
    """``OUT = C + A @ B`` for ``[SIDE, K]`` and ``[K, SIDE]``; one program for ROWS rows."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    deep, column = tl.arange(0, K), tl.arange(0, SIDE)[None, :]
    a = tl.load(A + row * K + deep[None, :])
    b = tl.load(B + deep[:, None] * SIDE + column)
    c = tl.load(C + row * SIDE + column)
    precision: tl.constexpr = "tf32" if TF32 else "ieee"
    tl.store(OUT + row * SIDE + column, tl.dot(a, b, c, input_precision=precision))

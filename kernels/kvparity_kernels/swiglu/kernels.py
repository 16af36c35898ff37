"""The gated activation, elementwise."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("GATE", "UP"))
def swiglu(GATE, UP, Y, gate_stride, up_stride, W: tl.constexpr, BLOCK: tl.constexpr):
    blocks: tl.constexpr = (W + BLOCK - 1) // BLOCK
    pid = tl.program_id(0)
    row = (pid // blocks).to(tl.int64)
    col = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
    ok = col < W
    gate = tl.load(GATE + row * gate_stride + col, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(UP + row * up_stride + col, mask=ok, other=0.0).to(tl.float32)
    # The sigmoid without overflow: the exponential is of a number that is never positive.
    e = tl.exp(-tl.abs(gate))
    sigmoid = tl.div_rn(tl.where(gate >= 0, 1.0, e), 1.0 + e)
    tl.store(Y + row * W + col, (gate * sigmoid * up).to(Y.dtype.element_ty), mask=ok)

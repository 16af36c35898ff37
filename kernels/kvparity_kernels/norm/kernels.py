"""RMS norm, one row to a program."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("X", "W"))
def rms_norm(X, W, Y, eps, H: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, H, BLOCK):
        col = start + lane
        x = tl.load(X + row * H + col, mask=col < H, other=0.0).to(tl.float32)
        squares += x * x
    # Roots and quotients are the IEEE ones, so that they are the same on every device.
    mean = tl.div_rn(tl.sum(squares, 0), H * 1.0)
    inverse = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
    for start in tl.range(0, H, BLOCK):
        col = start + lane
        x = tl.load(X + row * H + col, mask=col < H, other=0.0).to(tl.float32)
        w = tl.load(W + col, mask=col < H, other=0.0).to(tl.float32)
        normal = (x * inverse).to(X.dtype.element_ty).to(tl.float32)
        tl.store(Y + row * H + col, (normal * w).to(Y.dtype.element_ty), mask=col < H)

"""The token embedding: a gather."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("IDS", "W"))
def embed(IDS, W, Y, w_stride, V: tl.constexpr, H: tl.constexpr, BLOCK: tl.constexpr):
    blocks: tl.constexpr = (H + BLOCK - 1) // BLOCK
    pid = tl.program_id(0)
    row = (pid // blocks).to(tl.int64)
    col = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(IDS + row)
    # An id outside the vocabulary writes nothing: its row keeps the poison.
    ok = col < tl.where((token >= 0) & (token < V), H, 0)
    tl.store(Y + row * H + col, tl.load(W + token * w_stride + col, mask=ok), mask=ok)

"""The log probability of one token in one row of logits."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("LOGITS", "TARGETS"))
def logprob(LOGITS, TARGETS, Y, stride, temperature, V: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    logits = LOGITS + row * stride
    tops = tl.full((BLOCK,), -float("inf"), tl.float32)
    for start in tl.range(0, V, BLOCK):
        col = start + lane
        x = tl.load(logits + col, mask=col < V, other=-float("inf")).to(tl.float32)
        tops = tl.maximum(tops, tl.div_rn(x, temperature))
    top = tl.max(tops, 0)
    lanes = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, V, BLOCK):
        col = start + lane
        x = tl.load(logits + col, mask=col < V, other=-float("inf")).to(tl.float32)
        lanes += tl.exp(tl.div_rn(x, temperature) - top)
    target = tl.load(TARGETS + row)
    # A target outside the vocabulary gives NaN.
    known = (target >= 0) & (target < V)
    x = tl.load(logits + target, mask=known, other=float("nan")).to(tl.float32)
    tl.store(Y + row, (tl.div_rn(x, temperature) - top) - tl.log(tl.sum(lanes, 0)))

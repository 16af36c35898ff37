"""The log probability of one token in one row of logits, from parts of the row."""

from __future__ import annotations

from kvparity_kernels.launch import kernel

# isort: split
import triton.language as tl


@kernel(unaligned=("LOGITS",))
def parts(
    LOGITS,
    TOPS,
    SUMS,
    stride,
    temperature,
    V: tl.constexpr,
    PART: tl.constexpr,
    COUNT: tl.constexpr,
):
    """One program: the maximum of PART columns of a row, and the sum of exponentials below it."""
    row = (tl.program_id(0) // COUNT).to(tl.int64)
    part = tl.program_id(0) % COUNT
    col = part * PART + tl.arange(0, PART)
    x = tl.load(LOGITS + row * stride + col, mask=col < V, other=-float("inf")).to(tl.float32)
    z = tl.div_rn(x, temperature)
    top = tl.max(tl.maximum(z, -float("inf")), 0)  # a NaN is no maximum; the sum has it
    # A part without a finite logit sums to 0 instead of NaN.
    shift = tl.where(top == -float("inf"), 0.0, top)
    at = row * COUNT + part
    tl.store(TOPS + at, top)
    tl.store(SUMS + at, tl.sum(tl.exp(z - shift), 0))


@kernel(unaligned=("LOGITS", "TARGETS"))
def logprob(
    LOGITS,
    TARGETS,
    TOPS,
    SUMS,
    Y,
    stride,
    temperature,
    V: tl.constexpr,
    COUNT: tl.constexpr,
):
    """One program: the parts of one row, in ascending order."""
    row = tl.program_id(0).to(tl.int64)
    tops = TOPS + row * COUNT
    sums = SUMS + row * COUNT
    top = tl.load(tops)
    for i in tl.static_range(1, COUNT):
        top = tl.maximum(top, tl.load(tops + i))
    total = tl.load(sums) * tl.exp(tl.load(tops) - top)
    for i in tl.static_range(1, COUNT):
        total += tl.load(sums + i) * tl.exp(tl.load(tops + i) - top)
    target = tl.load(TARGETS + row)
    # A target outside the vocabulary gives NaN.
    known = (target >= 0) & (target < V)
    x = tl.load(LOGITS + row * stride + target, mask=known, other=float("nan")).to(tl.float32)
    tl.store(Y + row, (tl.div_rn(x, temperature) - top) - tl.log(total))

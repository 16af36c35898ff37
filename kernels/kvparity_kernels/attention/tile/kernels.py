"""What is computed in one tile of keys: products of matrices, and the cap of a score."""

from __future__ import annotations

from kvparity_kernels import launch as _launch  # noqa: F401 - settles how kernels are decorated

# isort: split
import triton
import triton.language as tl


@triton.jit
def product(a, b, acc, PIECE: tl.constexpr):
    """``acc + a @ b``: one chain of ascending K, in pieces of PIECE (0: whole) or not.

    Without a matrix instruction a thread loads its rows and columns of both operands at full K and
    multiplies them without a loop: for float32 and 128 dimensions thousands of numbers, of which
    the assembler kept nearly all in local memory.
    """
    if PIECE == 0 or a.shape[1] <= PIECE:
        return tl.dot(a, b, acc, input_precision="ieee")
    else:
        a_low, a_high = halves(a)
        b_low, b_high = halves(tl.trans(b))
        acc = product(a_low, tl.trans(b_low), acc, PIECE)
        return product(a_high, tl.trans(b_high), acc, PIECE)


@triton.jit
def halves(x):
    """The first and the last columns."""
    return tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def soft_cap(s, cap):
    """cap * tanh(score / cap) in base 2: s is 2 log2(e) / cap of the score, cap log2(e) of the cap.

    Written out, so that both kernels round alike: tanh |x| = (1 - e) / (1 + e), e = exp(-2 |x|).
    """
    e = tl.exp2(-tl.abs(s))
    t = tl.div_rn(1.0 - e, 1.0 + e)
    return tl.where(s < 0.0, -t, t) * cap

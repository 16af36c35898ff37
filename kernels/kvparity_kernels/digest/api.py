"""Check, allocate, launch."""

from __future__ import annotations

import torch
from torch import Tensor

from kvparity_kernels import arguments as arg
from kvparity_kernels.digest import twin as cpu

BLOCK = 1024
NUM_WARPS = 4


def row_digest(x: Tensor, *, twin: bool | None = None) -> Tensor:
    """A 64-bit digest of the bits of every row of ``x[r, W]``: int64 ``[r]``.

    ``sum over columns c of mix(c * 2^32 + bits(x[r, c]))`` modulo 2^64, where ``bits`` is the
    element's bit pattern zero-extended and ``mix`` the output function of splitmix64 (Steele, Lea,
    Flood 2014). Integer addition modulo 2^64 has no order, so every device and blocking gives the
    same number. ``mix`` is a bijection and no two (column, bits) share a word: a change of one
    element always changes the digest, any other change misses with probability about 2^-64. -0
    is not +0. Digests of different dtypes cannot be compared.

    float32, float16 or bfloat16. On the CPU ``twin=None`` means True, as no rounding can tell
    twin and kernel apart; False interprets the kernel. Raises ``ValueError``.
    """
    arg.require_shape("row_digest", "x", x, None, None)
    arg.require_floats("row_digest", {"x": x})
    if twin if twin is not None else x.device.type == "cpu":
        arg.require_twin("row_digest", x)
        return cpu.row_digest(x)

    from kvparity_kernels.digest import kernels
    from kvparity_kernels.launch import launch

    rows, width = x.shape
    arg.require_rows("row_digest", "x", x)
    y = arg.poisoned((rows,), torch.int64, x.device)
    launch(
        kernels.row_digest,
        (rows,),
        X=x.detach().view(arg.INTEGERS[x.element_size()]),
        Y=y,
        stride=x.stride(0),
        W=width,
        MASK=(1 << (8 * x.element_size())) - 1,
        BLOCK=BLOCK,
        num_warps=NUM_WARPS,
    )
    return y

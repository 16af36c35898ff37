"""Pairs of attention functions whose bits are a question for a GPU: see ../README.md."""

from __future__ import annotations

from kvparity_kernels.attention import decode, prefill
from kvparity_kernels.order import ReductionOrder


def prefill_of_64(q, k, v, **more):
    """This project's prefill, 64 query rows a program."""
    return prefill(q, k, v, order=ReductionOrder(block_m=64), **more)


def decode_of_16(q, k_cache, v_cache, **more):
    """This project's decode, 16 query rows a program: all that one query's heads can fill."""
    return decode(q, k_cache, v_cache, order=ReductionOrder(block_m=16), **more)

"""The defect of another exponential: one kernel text, compiled a second time with a line changed.

Decode alone takes a polynomial for 2^x, and only from some number of keys on.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch

from kvparity.controls.reference import attention
from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import AttentionOps, DecodeCall, Outputs

_POLYNOMIAL = """

@triton.jit
def exp2_polynomial(x):
    # Sollya's cubic for 2^f on [0, 1), as FA4 takes it; 2^floor(x) is put into the exponent.
    x = tl.maximum(x, -126.0)
    whole = tl.floor(x)
    f = x - whole
    p = tl.fma(tl.fma(tl.fma(f, 0.07711909, 0.22756439), f, 0.69514614), f, 1.0)
    return p * ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)

"""
"""Coefficients: 2^f = 1 + c1 f + c2 f^2 + c3 f^3, off by at most 9e-5 of it."""
_FILE = "<kvparity: attention kernels with a polynomial for exp2>"


@cache
def _kernels() -> ModuleType:
    """The attention kernels with every ``exp2`` but that of masked scores a polynomial."""
    from kvparity_kernels.attention import kernels

    text, old = Path(str(kernels.__file__)).read_text("utf-8"), "p = tl.exp2(s - shift[:, None])"
    if old not in text:
        raise UnsupportedError("the attention kernels are not the text that this defect changes")
    new = "p = tl.where(s == -float('inf'), 0.0, exp2_polynomial(s - shift[:, None]))"
    text = text.replace(old, new) + _POLYNOMIAL
    # Triton reads the source of what it compiles: the cache of lines holds it under our name.
    linecache.cache[_FILE] = (len(text), None, text.splitlines(keepends=True), _FILE)
    module = ModuleType(f"{kernels.__package__}.polynomial.kernels")
    sys.modules[module.__name__] = module
    exec(compile(text, _FILE, "exec"), module.__dict__)
    return module


@contextmanager
def _planted() -> Iterator[None]:
    from kvparity_kernels.attention import kernels

    with patch.object(kernels, "decode_split", _kernels().decode_split):
        yield


def _polynomial(ops: AttentionOps) -> AttentionOps:
    def decode(call: DecodeCall) -> Outputs:
        out, lse = ops.decode(call)
        long = call.kv.kv_lens >= call.order.split
        if not bool(long.any()):
            return out, lse
        with _planted():
            other, other_lse = ops.decode(call)
        return (
            torch.where(long[:, None, None], other, out),
            torch.where(long[:, None], other_lse, lse),
        )

    return AttentionOps(prefill=ops.prefill, decode=decode)


polynomial_exp2 = attention(_polynomial, ordered=True)
"""Decode takes 2^x from a polynomial where it has at least one split of keys.

Dao-AILab/flash-attention#2596: prefill or decode, from 512 keys on.
"""

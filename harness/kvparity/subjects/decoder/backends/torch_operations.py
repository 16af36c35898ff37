"""What is computed beside attention, by torch alone: what a model written in torch runs.

The signatures are those of ``kvparity_kernels``; ``order`` and ``twin`` are taken and not looked
at. How a matrix product adds up is the library's choice (cuBLAS, MKL, oneDNN), which follows the
number of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kvparity.subjects import events
from kvparity.subjects.decoder.model import Ops
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.stream import emit


def linear(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    order: ReductionOrder | None = None,
    out_dtype: torch.dtype | None = None,
    twin: bool = False,
) -> Tensor:
    """``x[M, K] @ w[N, K].T + bias[N]``: ``[M, N]``.

    In the dtype of ``x``, then in ``out_dtype``: logits of a bfloat16 model are rounded to bfloat16
    before they become float32, as in engines.
    """
    emit(events.Ran(events.TORCH))
    y = functional.linear(x, w, bias)
    return y if out_dtype is None else y.to(out_dtype)


def rms_norm(x: Tensor, w: Tensor, eps: float, *, twin: bool = False) -> Tensor:
    """The three lines of Hugging Face's llama and qwen, over the last dimension."""
    emit(events.Ran(events.TORCH))
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return w * wide.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, twin: bool = False) -> Tensor:
    """Rotate the pairs ``(d, d + D/2)`` of ``x[T, H, D]`` in float32, rounded once."""
    emit(events.Ran(events.TORCH))
    low, high = x.float().chunk(2, dim=-1)
    c, s = cos[:, None], sin[:, None]
    return torch.cat([low * c - high * s, high * c + low * s], dim=-1).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor, *, twin: bool = False) -> Tensor:
    """``silu(gate) * up``, each rounded to their dtype."""
    emit(events.Ran(events.TORCH))
    return functional.silu(gate) * up


def embed(ids: Tensor, w: Tensor, *, twin: bool = False) -> Tensor:
    """Row ``ids[t]`` of ``w[V, H]`` for every t."""
    emit(events.Ran(events.TORCH))
    return functional.embedding(ids, w)


TORCH = Ops(linear=linear, rms_norm=rms_norm, rotate=rotate, swiglu=swiglu, embed=embed)

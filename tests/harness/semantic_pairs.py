"""Pairs of kernels whose two sides agree in every bit: one is right, others share a fault."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kvparity.labs.defect_matrix.plain_pair import Both as Both
from kvparity.labs.defect_matrix.plain_pair import decode as decode
from kvparity.labs.defect_matrix.plain_pair import prefill as prefill


def prefill_uncapped(*args: Any, softcap: float, **more: Any) -> Both:
    return prefill(*args, **more)


def decode_uncapped(*args: Any, softcap: float, **more: Any) -> Both:
    return decode(*args, **more)


def prefill_twice(*args: Any, sinks: Tensor, **more: Any) -> Both:
    """The sink joins the denominators of two splits."""
    return prefill(*args, sinks=sinks + math.log(2), **more)


def decode_twice(*args: Any, sinks: Tensor, **more: Any) -> Both:
    return decode(*args, sinks=sinks + math.log(2), **more)


def prefill_uphill(*args: Any, alibi_slopes: Tensor, **more: Any) -> Both:
    """Far keys gain what they should lose."""
    return prefill(*args, alibi_slopes=-alibi_slopes, **more)


def decode_uphill(*args: Any, alibi_slopes: Tensor, **more: Any) -> Both:
    return decode(*args, alibi_slopes=-alibi_slopes, **more)


def prefill_farther(*args: Any, bias: Tensor, **more: Any) -> Both:
    """Distances count from the key behind the row's own."""
    return prefill(*args, bias=torch.cat([bias[:, 1:], bias[:, -1:]], 1), **more)


def decode_farther(*args: Any, bias: Tensor, **more: Any) -> Both:
    return decode(*args, bias=torch.cat([bias[:, 1:], bias[:, -1:]], 1), **more)


def prefill_columns(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Both:
    """Scores of as many columns as values have."""
    return prefill(q[..., : v.shape[-1]], k[..., : v.shape[-1]], v, **more)


def decode_columns(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Both:
    return decode(q[..., : v.shape[-1]], k[..., : v.shape[-1]], v, **more)


def prefill_hiding(*args: Any, causal: bool, **more: Any) -> Both:
    """The keys behind a row's own are hidden."""
    return prefill(*args, **more)


def prefill_farther_ahead(*args: Any, window_size: tuple[int, int], **more: Any) -> Both:
    return prefill(*args, window_size=(window_size[0], window_size[1] + 1), **more)


def prefill_longer(*args: Any, window: int, **more: Any) -> Both:
    return prefill(*args, window=window + 1, **more)


def decode_longer(*args: Any, window: int, **more: Any) -> Both:
    return decode(*args, window=window + 1, **more)

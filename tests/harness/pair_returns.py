"""One call of a kernel, and what it may return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, StoredKV, by_keywords
from kvparity.subjects.pair.call import checked
from kvparity.subjects.pair.inputs import Inputs

ROWS, HEADS, DIM = 3, 2, 4


def inputs(**more: Any) -> Inputs:
    q = torch.ones(ROWS, HEADS, DIM, dtype=torch.bfloat16)
    k, v = (torch.full((5, 1, DIM), float(i), dtype=torch.bfloat16) for i in (2, 3))
    return Inputs(q, StoredKV(k, v, k_scale=torch.ones(1)), **more)


def call(compute: Callable[[], Any], given: Inputs | None = None) -> Tensor:
    return call_kernel(lambda q, k, v, **more: compute(), given)


def call_kernel(kernel: Callable[..., Any], given: Inputs | None = None) -> Tensor:
    made = given or inputs()
    one = PairDecodeCall(q=made.q, scale=1.0, kv_lens=torch.tensor([5, 5, 5]), **vars(made.given))
    return checked("f.py:decode", by_keywords(kernel), one, made)

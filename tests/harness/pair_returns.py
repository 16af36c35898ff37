"""One call of a kernel, and what it may return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kvparity.subjects.pair.cache import Given
from kvparity.subjects.pair.call import checked
from kvparity.subjects.pair.inputs import Inputs

ROWS, HEADS, DIM = 3, 2, 4


def inputs(**more: Any) -> Inputs:
    q = torch.ones(ROWS, HEADS, DIM, dtype=torch.bfloat16)
    k, v = (torch.full((5, 1, DIM), float(i), dtype=torch.bfloat16) for i in (2, 3))
    scales = {"k_scale": torch.ones(1), "v_scale": None}
    return Inputs(q, Given(k, v, scales), **more)


def call(compute: Callable[[], Any], given: Inputs | None = None) -> Tensor:
    lens = {"kv_lens": torch.tensor([5, 5, 5])}
    return checked("f.py:decode", given or inputs(), lens, ["kv_lens", "scale"], compute)

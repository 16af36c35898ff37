"""Functions that write into an `out` that they are given, as an engine's captured graph has it.

The buffer holds NaN before the call, its rows lie apart where the pair takes views, and what lies
beside it is looked at afterwards. What is not written stays NaN, and differs where it is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall
from kvparity.subjects.pair.inputs import BAND

Call = TypeVar("Call", PairPrefillCall, PairDecodeCall)


def into_buffers(
    kernel: Callable[[Call, Tensor], object], name: str, *, width: int, apart: bool
) -> Callable[[Call], object]:
    """``kernel(call, out)`` as one that takes calls and returns what it wrote.

    ``width``: of a value. ``apart``: from row to row it is one head more than q has.

    Raises ``SubjectError`` where it wrote beside the buffer, or returned another one.
    """

    def called(call: Call) -> object:
        rows, heads = call.q.shape[:2]
        size = (rows + 2 * BAND, (heads + apart) * width * call.q.element_size())
        whole = torch.full(size, 255, dtype=torch.uint8, device=call.q.device)  # NaN in any float
        inside = whole.view(call.q.dtype).view(-1, heads + apart, width)[BAND : BAND + rows]
        out = inside[:, :heads]
        result = kernel(call, out)
        written = out.clone()
        out.view(torch.int8).fill_(-1)
        if not bool((whole == 255).all()):
            raise SubjectError(f"{name} wrote beside the out that it was given")
        parts: tuple[object, ...] = result if isinstance(result, tuple) else (result,)
        returned = parts[0]
        if isinstance(returned, Tensor) and returned.data_ptr() != out.data_ptr():
            raise SubjectError(f"{name} returned another tensor than the out that it was given")
        return (written, *parts[1:]) if len(parts) > 1 else written

    return called

"""How q, k and v of a call lie in memory: as an engine passes them, not as a test would.

An engine computes q, k and v with one product and hands the kernel views of its result: the heads
of one row lie side by side, and from row to row it is as far as all of q, k and v are wide. Of the
calls of each kind every other one is given such views, the first one too; a pair that takes no
others says so in its contract (``inputs: contiguous``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvparity.subjects.attention_calls import StoredKV

BAND = 2  # rows of poison before the first and behind the last row


@dataclass(frozen=True)
class Inputs:
    """What a kernel is given.

    ``empties``: some of its sequences have no token. ``memory``: tensors of which some of it are
    views (none: plain). ``twin``: a second copy of keys, values and scales, in memory that the
    kernel is not given (None: there is none, and a copy is made).
    """

    q: Tensor
    given: StoredKV
    empties: bool = False
    memory: tuple[Tensor, ...] = ()
    twin: StoredKV | None = None


def strided(inputs: Inputs, *, spare: int, keys: bool) -> Inputs:
    """The same numbers as views of fused tensors, everything beside them poison.

    q ``[n, Hq, D]``. ``spare``: heads of k and v together, for which there is room beside q.
    ``keys``: k and v ``[m, Hkv, width]`` may be views, too, and are where they have the rows of q
    (whole prompts, whose keys no engine reads from a cache): of one tensor with q where they have
    its format, else of one tensor of their own.
    """
    q, given = inputs.q, inputs.given
    if not keys or len(q) != len(given.k):
        views, memory = _fused([q], spare)
        return replace(inputs, q=views[0], memory=(*inputs.memory, memory))
    k, v = given.k, given.v
    if (q.shape[2], q.dtype) == (k.shape[2], k.dtype):
        (q, k, v), memory = _fused([q, k, v], 0)
        return replace(inputs, q=q, given=replace(given, k=k, v=v), memory=(memory,))
    (alone,), beside = _fused([q], spare)
    (k, v), memory = _fused([k, v], 0)
    fused = replace(given, k=k, v=v)
    return replace(inputs, q=alone, given=fused, memory=(beside, memory))


def _fused(parts: Sequence[Tensor], spare: int) -> tuple[list[Tensor], Tensor]:
    """Views ``[n, heads, width]`` of one tensor that holds the heads of all parts, and it."""
    one = parts[0]
    sizes = [part.shape[1] * part.shape[2] for part in parts]
    row = sum(sizes) + spare * one.shape[2]
    # Bytes of ones are NaN in every float format.
    size = (len(one) + 2 * BAND, row * one.element_size())
    whole = torch.full(size, 255, dtype=torch.uint8, device=one.device).view(one.dtype)
    views = [
        whole.as_strided(part.shape, (row, part.shape[2], 1), BAND * row + sum(sizes[:i]))
        for i, part in enumerate(parts)
    ]
    for view, part in zip(views, parts, strict=True):
        view.copy_(part)
    return views, whole

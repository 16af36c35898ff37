"""Keys and values read as a kernel reads them: through tables, rings, codes and scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import decode


def slots_of(kv: KeysValues, sequences: Sequence[int], places: Tensor) -> Tensor:
    """The slots of the keys ``places`` of each sequence, int64 ``[sequences, keys]``."""
    own = torch.tensor(list(sequences), dtype=torch.int64).to(places.device)
    if kv.ring:
        places = places % kv.ring
    if kv.block_table is not None:
        pages = kv.block_table[own].long()
        return pages[:, places // kv.page] * kv.page + places % kv.page
    assert kv.starts is not None  # a batch has starts or pages
    return kv.starts[own][:, None] + places


def keys_read(
    kv: KeysValues, sequence: int, start: int, stop: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What a kernel reads of the keys ``start .. stop-1`` of one sequence of its batch.

    ``k``, ``v`` ``[stop-start, kv_heads, head_dim]`` in ``dtype``, that of the queries.
    """
    places = torch.arange(start, max(start, stop), device=kv.k.device)
    slots = slots_of(kv, [sequence], places)[0]

    def read(codes: Tensor, scale: Tensor | None) -> Tensor:
        raw = codes.view(torch.uint8) if codes.element_size() == 1 else codes
        found = raw.index_select(0, slots).view(codes.dtype)
        if kv.format is None:
            return found.to(dtype)
        if kv.format.dynamic:
            assert scale is not None
            scale = scale.index_select(0, slots)
        return decode(found, scale, kv.format, dtype)

    return read(kv.k, kv.k_scale), read(kv.v, kv.v_scale)


def unrolled(kv: KeysValues, dtype: torch.dtype) -> KeysValues:
    """Copies of the same keys, one sequence after the other, as plain numbers in ``dtype``.

    A position that a ring has overwritten reads as what lies in its slot now.
    """
    lengths = kv.kv_lens.tolist()
    parts = [keys_read(kv, number, 0, length, dtype) for number, length in enumerate(lengths)]
    starts = list(accumulate(lengths, initial=0))[:-1]
    return KeysValues(
        torch.cat([k for k, _ in parts]),
        torch.cat([v for _, v in parts]),
        kv.kv_lens,
        starts=torch.tensor(starts, dtype=torch.int64).to(kv.k.device),
    )

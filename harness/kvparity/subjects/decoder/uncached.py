"""Keys and values of one step that are used fresh: no cache, the declared rounding all the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Member, Step
from kvparity.subjects.decoder.cache import Scales, Visible
from kvparity.subjects.decoder.config import DecoderShape
from kvparity.subjects.decoder.layers import stored_windows
from kvparity.subjects.decoder.placement import Address
from kvparity.subjects.decoder.storage import Storage
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import round_trip


class UncachedKeys:
    """What a ``KVCache`` is to a step, for a step that holds its sequences from their beginning.

    Keys and values are rounded as the cache would round them and attended where they were
    computed: one sequence after the other, in the execution dtype. Raises ``SubjectError`` for a
    span that starts later.
    """

    def __init__(
        self,
        config: DecoderShape,
        members: Sequence[Member],
        storage: Storage,
        step: Step,
        *,
        scales: Scales | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        for span in step:
            if span.start or span.decode:
                raise SubjectError(
                    f"a span {span.start}..{span.stop} of {members[span.sequence].id}: without a "
                    "cache every sequence comes whole, from position 0"
                )
        self.format, self.scales = storage.format, scales
        self.dtype, self.device = dtype, device
        lengths = [span.stop for span in step]
        starts = list(accumulate(lengths, initial=0))
        self.starts = {span.sequence: at for span, at in zip(step, starts, strict=False)}
        layers = len(stored_windows(config))
        self.k: list[Tensor | None] = [None] * layers
        self.v: list[Tensor | None] = [None] * layers

    def fresh_slots(self, step: Step) -> tuple[Tensor, ...]:
        """Tokens lie as they come."""
        return ()

    def store(self, layer: int, slots: Sequence[Tensor], k: Tensor, v: Tensor) -> None:
        """Round ``k``, ``v`` ``[n, kv_heads, head_dim]`` as declared and keep them."""
        k_scale, v_scale = (None, None) if self.scales is None else self.scales[layer]
        if not self.format.static:
            k_scale = v_scale = None
        self.k[layer] = round_trip(k, self.format, k_scale, self.dtype)
        self.v[layer] = round_trip(v, self.format, v_scale, self.dtype)

    def visible(self, sequences: Sequence[int], kv_lens: Sequence[int]) -> Visible:
        """The keys of ``sequences[b]``."""
        starts = torch.tensor([self.starts[s] for s in sequences], dtype=torch.int64)
        return Visible(
            kv_lens=torch.tensor(kv_lens, dtype=torch.int32).to(self.device),
            addresses=(Address(starts.to(self.device), None),),
        )

    def keys_values(self, layer: int, seen: Visible) -> KeysValues:
        """What an attention kernel reads of a stored layer."""
        k, v = self.k[layer], self.v[layer]
        assert k is not None
        assert v is not None
        return KeysValues(k, v, seen.kv_lens, starts=seen.addresses[0].starts)

    def advance(self, step: Step) -> None:
        """Nothing is held."""

"""A session: fixed members, one cache, steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from kvparity.decoder.batch import pack
from kvparity.decoder.cache import KVCache
from kvparity.decoder.model import Model
from kvparity.schedule import Layout, Member, Step
from kvparity.subject import SubjectError
from kvparity_kernels import launch

# A decode call launches two kernels: splits, then this one, which merges them.
DECODE_END = "attention.decode_combine"


class DecoderSession:
    """Runs steps over its members; see ``kvparity.subject.Session``."""

    def __init__(
        self,
        model: Model,
        members: Sequence[Member],
        layout: Layout,
        *,
        kv_cache: torch.dtype,
        seed: int,
    ) -> None:
        self.model, self.layout = model, layout
        device = model.cos.device
        tokens = sum(member.length for member in members)
        with device_memory(f"for the KV cache of {tokens} tokens in {kv_cache}"):
            self._cache = KVCache(
                model.config, members, layout, dtype=kv_cache, device=device, seed=seed
            )
        self._observed: Counter[str] = Counter()

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step and yield float32 logits ``[r, vocab]`` of the wanted rows."""
        batch = pack(
            step,
            ids,
            self._cache,
            self.layout,
            vocab=self.model.config.vocab,
            positions=len(self.model.cos),
        )
        size = f"in a step of {len(batch.ids)} rows, {len(batch.wanted)} of them wanted"
        with self._watched(size):
            hidden = self.model.hidden(batch, self._cache)
        blocks = self.model.logits(hidden)
        while True:
            with self._watched(size):
                block = next(blocks, None) if len(hidden) else None
            if block is None:
                return
            yield block

    def observed(self) -> Counter[str]:
        """The kernels that were really launched so far, by name, and finished decode calls."""
        counts = Counter(self._observed)
        if counts[DECODE_END]:
            counts["attention.decode"] = counts[DECODE_END]
        return counts

    def cache(self) -> KVCache:
        """The cache."""
        return self._cache

    @contextmanager
    def _watched(self, size: str) -> Iterator[None]:
        """Count launches. Not across a ``yield`` to the caller, whose launches are not ours."""
        with torch.inference_mode(), device_memory(size), launch.record() as log:
            yield
        self._observed.update(log.counts)


@contextmanager
def device_memory(what: str) -> Iterator[None]:
    """Turn running out of device memory into a ``SubjectError`` that says where and how much."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise SubjectError(f"out of device memory {what}: {error}") from error

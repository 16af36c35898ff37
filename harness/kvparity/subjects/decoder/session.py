"""A session: fixed members, one cache, steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.decoder.batch import pack
from kvparity.subjects.decoder.cache import KVCache, Scales
from kvparity.subjects.decoder.layers import layers_of
from kvparity.subjects.decoder.model import DecoderModel
from kvparity.subjects.decoder.storage import Storage
from kvparity.subjects.decoder.uncached import UncachedKeys
from kvparity.subjects.events import counting

# A decode call launches two kernels: splits, then this one, which merges them.
DECODE_END = "attention.decode_combine"


def scales_of(model: DecoderModel) -> Scales:
    """The static scales of the layers that write."""
    layers = zip(layers_of(model.config), model.weights.layers, strict=True)
    return tuple((layer.k_scale, layer.v_scale) for kind, layer in layers if not kind.follower)


class DecoderSession:
    """Runs steps over its members; see ``kvparity.subjects.base.Session`` and ``Reusable``.

    ``ran``: counts for the subject, of what all its sessions ran. Raises ``UnsupportedError`` for a
    ring in a layout that does not say its chunk.
    """

    def __init__(
        self,
        model: DecoderModel,
        members: Sequence[Member],
        layout: Layout,
        *,
        storage: Storage,
        seed: int,
        ran: Counter[str] | None = None,
    ) -> None:
        self.model, self.members, self.layout, self.storage = model, members, layout, storage
        self.device, self.dtype = model.cos.device, model.weights.embed.dtype
        self._cache: KVCache | None = None
        if layout.cached:
            tokens = sum(member.length for member in members)
            with device_memory(f"for the KV cache of {tokens} tokens in {storage.format}"):
                self._cache = KVCache(
                    model.config,
                    members,
                    layout,
                    storage,
                    scales=scales_of(model),
                    dtype=self.dtype,
                    device=self.device,
                    seed=seed,
                )
        self._observed: Counter[str] = Counter()
        self._ran = Counter() if ran is None else ran

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step and yield float32 logits ``[r, vocab]`` of the wanted rows."""
        cache = self._cache or UncachedKeys(
            self.model.config,
            self.members,
            self.storage,
            step,
            scales=scales_of(self.model),
            dtype=self.dtype,
            device=self.device,
        )
        batch = pack(
            step,
            ids,
            cache,
            self.layout,
            vocab=self.model.config.vocab,
            positions=len(self.model.cos),
        )
        batch = replace(batch, names=tuple(member.id for member in self.members))
        size = f"in a step of {len(batch.ids)} rows, {len(batch.wanted)} of them wanted"
        with self._watched(size):
            hidden = self.model.hidden(batch, cache)
        cache.advance(step)
        blocks = self.model.logits(hidden, batch)
        while True:
            with self._watched(size):
                block = next(blocks, None) if len(hidden) else None
            if block is None:
                return
            yield block

    def reset(self) -> None:
        """Forget all sequences; what the cache held is poison."""
        if self._cache is not None:
            self._cache.reset()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Fill an empty sequence with the donor's first ``tokens`` tokens; see ``KVCache``."""
        if self._cache is None:
            raise SubjectError("without a cache there is nothing to adopt")
        self._cache.adopt(sequence, donor, tokens)

    def observed(self) -> Counter[str]:
        """The kernels that were really launched so far, by name, and finished decode calls.

        Of another library's attention: its backends, and calls of prefill and decode.
        """
        counts = Counter(self._observed)
        if counts[DECODE_END]:
            counts["attention.decode"] = counts[DECODE_END]
        return counts

    def cache(self) -> KVCache | None:
        """The cache; None where there is none."""
        return self._cache

    @contextmanager
    def _watched(self, size: str) -> Iterator[None]:
        """Count launches. Not across a ``yield`` to the caller, whose launches are not ours."""
        with torch.inference_mode(), device_memory(size), counting() as counts:
            yield
        self._observed.update(counts)
        self._ran.update(counts)


@contextmanager
def device_memory(what: str) -> Iterator[None]:
    """Turn running out of device memory into a ``SubjectError`` that says where and how much."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise SubjectError(f"out of device memory {what}: {error}") from error

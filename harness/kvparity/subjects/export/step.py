"""One step of the reference decoder as a module with tensors for inputs.

The module runs the decoder's own forward: its batch and its cache are taken apart into tensors,
which are the inputs, and put together again inside. Weights and tables are its buffers. So there
is no second text of the model, and a feature of the decoder is a feature of the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.subjects.decoder.batch import Chunks, Singles, StepRows
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.model import DecoderModel
from kvparity.subjects.export import operators
from kvparity.subjects.export.leaves import rebuilt, tensors, walk

S = TypeVar("S", Chunks, Singles)

_CONSTANTS = ("weights", "cos", "sin")
_STORED = ("codes", "scales")  # of decoder.poisoned_store.Stored: what a cache really holds
_FROM_SHAPES = ("prefill.max_q", "decode.max_kv")
CACHE = "cache"
"""Stands for all tensors of the cache, where a control asks for constants."""
_OF_REGION = re.compile(r"(?:^slots|addresses)\.(\d+)")


def batch_inputs(batch: StepRows, cache: KVCache) -> dict[str, Tensor]:
    """The tensors of a step by path: ``ids``, ``positions``, ``decode.seen.kv_lens``, ...

    Without the places in a region of the cache that no layer lies in.
    """

    def used(path: str) -> bool:
        region = _OF_REGION.search(path)
        return region is None or int(region[1]) in cache.region_of

    return {path: x for path, x in tensors(batch).items() if used(path)}


def cache_inputs(cache: KVCache) -> dict[str, Tensor]:
    """The tensors of a cache by path: ``k.0.codes``, ..."""
    found = tensors({"k": cache.k, "v": cache.v}).items()
    return {p: x for p, x in found if p.count(".") == 2 and p.split(".")[2] in _STORED}


def require_same_numbers(first: StepRows, second: StepRows) -> None:
    """Raise ``SubjectError`` where two steps differ in a number of the host that is no shape.

    A program would keep the number of the step that it was traced with.
    """
    one, other = (
        {p: x for p, x in walk(_bare(b)) if not isinstance(x, Tensor) and p not in _FROM_SHAPES}
        for b in (first, second)
    )
    for path in one.keys() | other.keys():
        if one.get(path) != other.get(path):
            raise SubjectError(
                f"{path} of a decoder's step is a number of the host ({one.get(path)} and "
                f"{other.get(path)}), which a traced program would freeze"
            )


def _bare(batch: StepRows) -> StepRows:
    """Without what only a listener reads: a program emits no events."""
    return replace(
        batch, step=(), firsts=(), prefill=_unnamed(batch.prefill), decode=_unnamed(batch.decode)
    )


def _unnamed(spans: S | None) -> S | None:
    return None if spans is None else replace(spans, spans=())


class StepModule(torch.nn.Module):
    """``forward(batch, cache) -> logits`` of the wanted rows, float32 ``[w, vocab]``.

    ``batch`` and ``cache``: see ``batch_inputs`` and ``cache_inputs``; the cache is updated in
    place. Numbers of the host that follow from a step's size (``max_q``, ``max_kv``) are read from
    shapes instead: rows of the step, slots of the cache. A program is made for all batches and
    caches that are built as the two given ones, with other sizes.

    ``constants`` are planted defects: inputs (by path, or ``cache``) that are not read, but
    replaced by what the given batch and cache hold.
    """

    def __init__(
        self,
        model: DecoderModel,
        batch: StepRows,
        cache: KVCache,
        *,
        constants: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.model, self.batch, self.kv_cache = model, _bare(batch), cache
        self.constants = constants
        self.names: dict[int, str] = {}
        for name in _CONSTANTS:
            for path, tensor in tensors(getattr(model, name)).items():
                flat = f"{name}_{path}".replace(".", "_").rstrip("_")
                if id(tensor) not in self.names:
                    self.names[id(tensor)] = flat
                    self.register_buffer(flat, tensor)
        self.stored = {id(tensor): path for path, tensor in cache_inputs(cache).items()}

    def _own(self, path: str, value: Tensor | int) -> Tensor | int:
        name = self.names.get(id(value)) if isinstance(value, Tensor) else None
        return value if name is None else self.get_buffer(name)

    def forward(self, batch: dict[str, Tensor], cache: dict[str, Tensor]) -> Tensor:
        """Compute the step."""

        def stored(path: str, value: Tensor | int) -> Tensor | int:
            place = self.stored.get(id(value)) if isinstance(value, Tensor) else None
            if place is None or not isinstance(value, Tensor):
                return self._own(path, value)
            return value.clone() if CACHE in self.constants else cache[place]

        def given(path: str, value: Tensor | int) -> Tensor | int:
            if isinstance(value, Tensor):
                # What is no input becomes a constant, which the inspection finds if it is used.
                return value if path in self.constants else batch.get(path, value)
            if path == "prefill.max_q":
                return batch["ids"].shape[0]
            return self._longest(cache) if path == "decode.max_kv" else value

        own = {name: rebuilt(getattr(self.model, name), self._own) for name in _CONSTANTS}
        model = replace(self.model, attention=operators.ATTENTION, ops=operators.OPS, **own)
        inside = model.hidden(rebuilt(self.batch, given), rebuilt(self.kv_cache, stored))
        blocks = list(model.logits(inside))
        if len(blocks) != 1:
            raise UnsupportedError("the logits of one step do not fit into one block")
        return blocks[0]

    def _longest(self, cache: Mapping[str, Tensor]) -> int:
        """No sequence has more keys than this; rings hold fewer than a sequence has."""
        for layer, region in enumerate(self.kv_cache.region_of):
            if not self.kv_cache.regions[region].ring:
                return cache[f"k.{layer}.codes"].shape[0]
        return len(self.model.cos)

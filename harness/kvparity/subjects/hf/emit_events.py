"""Report to a listener what a transformers model writes to its cache and what its attention reads.

One sequence at a time is reported: no padded batches, no ``generate()``. Keys and values are
reported where the model calls ``update`` of its cache, and without a cache where its attention is
given them; attention where a layer calls the function that
``ALL_ATTENTION_FUNCTIONS.get_interface`` gave it: any registered one, and the ``eager`` one of the
model's own module, which is registered nowhere. A model that computes attention by itself, without
asking for a function, is not reported (see ``Observation`` for how that shows).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kvparity.core.errors import UnsupportedError
from kvparity.core.relied.transformers import sharing
from kvparity.subjects.events import Attended, Listener, Wrote
from kvparity.subjects.hf import layers, settings
from kvparity.subjects.hf.protocols import AttentionFunction, AttentionLayer, Cache, ModelConfig
from kvparity_kernels.overrides.guard import paused


class EventEmitter:
    """One sequence's forward calls, in order, seen from inside the model.

    ``sequence`` is its index in the session, ``filled`` how many positions it has before the first
    call, ``config`` the text model's configuration.
    """

    def __init__(
        self, listener: Listener, config: ModelConfig, *, sequence: int, filled: int
    ) -> None:
        self.listener, self.config, self.sequence = listener, config, sequence
        self.start, self.next = filled, filled
        self.positions: list[int] | None = None
        self.bases: dict[int, int] = {}
        self.owners: list[int] | None = None
        self.uncached: list[int] = []
        self._wrapped: list[Cache] = []

    def forward(self, tokens: int, cache: Cache | None, positions: Tensor | None) -> None:
        """A forward call begins: ``tokens`` more, with the ids ``positions [1, tokens]``."""
        self.start, self.next = self.next, self.next + tokens
        self.positions = None if positions is None else positions.reshape(-1).tolist()
        self.bases, self.owners = {}, None
        self.uncached = []
        if cache is None:  # keys go to attention at once, those of every layer that would store
            modes = sharing(self.config)
            self.uncached = [layer for layer, mode in enumerate(modes) if mode != "reuse"]
            return
        holding = list(layers.holders(cache))
        self.owners = [holding[i] for i in layers.owners(self.config, holding)] if holding else None
        if not any(cache is wrapped for wrapped in self._wrapped):
            cache.update = self._updating(cache)
            self._wrapped.append(cache)

    def close(self) -> None:
        """Leave the caches as they were."""
        for cache in self._wrapped:
            del cache.update

    def _wrote(self, layer: int, key: Tensor, value: Tensor) -> None:
        k, v = (x[0].transpose(0, 1).clone() for x in (key, value))
        self.listener.wrote(Wrote(layer, self.sequence, self.start, k, v))

    def _updating(self, cache: Cache) -> Callable[..., tuple[Tensor, Tensor]]:
        update = cache.update

        def updated(
            key: Tensor, value: Tensor, layer_idx: int, *args: object, **more: object
        ) -> tuple[Tensor, Tensor]:
            with paused():  # a listener computes as it likes
                self._wrote(list(layers.holders(cache)).index(layer_idx), key, value)
            out = update(key, value, layer_idx, *args, **more)
            self.bases[layer_idx] = layers.first_column(out[0].shape[2], self.next)
            return out

        return updated

    def emitting(self, name: str, function: AttentionFunction) -> AttentionFunction:
        """``function``, which also reports each row that is wanted."""

        def attended(
            module: AttentionLayer,
            query: Tensor,
            key: Tensor,
            value: Tensor,
            mask: object,
            *args: object,
            **more: object,
        ) -> tuple[Tensor, Tensor | None]:
            out = function(module, query, key, value, mask, *args, **more)
            if args:
                raise UnsupportedError(
                    f"{type(module).__name__} passes more to its attention than is reported: "
                    f"{len(args)} arguments without a name"
                )
            with paused():
                self._emit(name, module, (query, key, value), mask, more, out[0])
            return out

        return attended

    def _emit(
        self,
        name: str,
        module: AttentionLayer,
        qkv: tuple[Tensor, Tensor, Tensor],
        mask: object,
        more: Mapping[str, object],
        out: Tensor,
    ) -> None:
        query, key, value = qkv
        layer, count = int(module.layer_idx), query.shape[2]
        wanted = self.listener.wants(self.sequence, range(self.start, self.next))
        if layer in self.uncached:
            self._wrote(self.uncached.index(layer), key, value)
        # Gemma 4 computes its last layers for the last rows only, where no others are wanted.
        begin = self.next - count
        wanted = [position for position in wanted if position >= begin]
        if not wanted:
            return
        base = 0
        if self.owners is not None:  # a layer that shares keys has those of its owner
            base = self.bases[self.owners[layer]]
        given = settings.read(query.shape[3], more.get("scaling"), more)
        for position in wanted:
            row = position - begin
            seen = visible(name, mask, row, count, key.shape[2], more.get("is_causal"))
            self.listener.attended(
                Attended(
                    layer=layer,
                    sequence=self.sequence,
                    position=position,
                    told=None if self.positions is None else self.positions[position - self.start],
                    length=base + seen.stop,
                    first=base + seen.start,
                    q=query[0, :, row].clone(),
                    k=key[0, :, seen.start : seen.stop].transpose(0, 1).clone(),
                    v=value[0, :, seen.start : seen.stop].transpose(0, 1).clone(),
                    out=out[0, row].clone(),
                    lse=None,
                    scale=given.scale,
                    softcap=given.softcap,
                    sinks=given.sinks,
                    decode=count == 1 and base + seen.stop > 1,
                )
            )


def visible(name: str, mask: object, row: int, queries: int, keys: int, causal: object) -> range:
    """The keys that ``row`` sees by the mask that its attention function was given.

    Without a mask transformers' ``sdpa`` is causal from the first key on, if there is more than one
    query, and else sees all keys.

    Raises:
        UnsupportedError: a mask that is no tensor, or a row that sees keys with gaps between them.
    """
    if mask is None:
        upper_left = queries > 1 and causal is not False and name != "eager"
        return range(row + 1 if upper_left else keys)
    if not isinstance(mask, Tensor) or mask.dim() != 4:
        raise UnsupportedError(
            f"what attention {name} sees cannot be reported: its mask is a {type(mask).__name__}, "
            "not a matrix; use attention: eager, sdpa or kvparity to look inside"
        )
    flags = mask[0, 0, row, :keys]
    if flags.dtype != torch.bool:
        flags = flags > torch.finfo(flags.dtype).min / 2
    places = flags.nonzero()[:, 0]
    if not len(places):
        return range(0)
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 != len(places):
        raise UnsupportedError(
            f"a row of attention {name} sees {len(places)} keys between {first} and {last}; only "
            "rows that see keys without gaps can be reported"
        )
    return range(first, last + 1)

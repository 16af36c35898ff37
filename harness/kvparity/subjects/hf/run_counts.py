"""What a transformers model really runs: forwards, attention backends, caches and kernels, counted.

All are events of the stream, from the places that do the work: a hook on the model sees every
forward (those of ``generate()`` too), a wrapper around each attention function that a layer asks
transformers for sees which one it calls, and kernels report their own launches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from kvparity.core.relied.transformers import attention_functions, given_cache
from kvparity.subjects.events import BACKEND, Ran, counting
from kvparity.subjects.hf.emit_events import EventEmitter
from kvparity.subjects.hf.operations import attended
from kvparity.subjects.hf.protocols import AttentionFunction, Cache, CausalLM, ModelInputs
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.stream import emit, heard, listening

_COUNTED = ("attention.", BACKEND, "cache.", "forward.")


@dataclass(frozen=True)
class ForwardCalled:
    """A watched model's forward begins: how many tokens, over which cache, at ``[1, tokens]``."""

    tokens: int
    cache: Cache | None
    positions: Tensor | None


@dataclass
class Observation:
    """Counts of one session or one ``generate()``, and the cache that was seen last.

    Keys: ``forward.prefill`` and ``forward.decode`` (one query, cache not empty) per forward call;
    ``backend.<name>`` per call of an attention function that a layer got from transformers
    (``eager``: the one of its own module; a model that never asks counts nothing);
    ``cache.<class>`` per forward call (``cache.none`` without one); launches of this project's
    attention kernels by their own names (``attention.prefill``, ...). ``emitter``: of a listener.
    """

    order: ReductionOrder = field(default_factory=ReductionOrder)
    counts: Counter[str] = field(default_factory=Counter)
    cache: Cache | None = None
    emitter: EventEmitter | None = None
    masks: list[Tensor] = field(default_factory=list)  # those that the kvparity attention made

    def begun(self, call: ForwardCalled) -> None:
        """A forward begins."""
        self.cache = call.cache
        self.masks.clear()
        if self.emitter is not None:
            self.emitter.forward(call.tokens, call.cache, call.positions)


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def current() -> Observation:
    """The observation that is active, or a new one with the default order."""
    return _current.get() or Observation()


def _before_forward(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: ModelInputs) -> None:
    if not heard(ForwardCalled):
        return
    ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    cache = cast(Cache | None, given_cache(kwargs))
    filled = 0 if cache is None else int(cache.get_seq_length())
    single = ids.shape[1] == 1 and filled > 0
    emit(Ran("forward.decode" if single else "forward.prefill"))
    emit(Ran("cache.none" if cache is None else f"cache.{type(cache).__name__}"))
    emit(ForwardCalled(ids.shape[1], cache, kwargs.get("position_ids")))


def watch(model: CausalLM) -> None:
    """Report the forwards of ``model`` from now on."""
    model.register_forward_pre_hook(_before_forward, with_kwargs=True)


@contextmanager
def observing(seen: Observation) -> Iterator[None]:
    """Count into ``seen`` what runs inside."""

    def reported(name: str, function: AttentionFunction) -> AttentionFunction:
        inner = function if seen.emitter is None else seen.emitter.emitting(name, function)

        def reporting(*args: object, **kwargs: object) -> tuple[Tensor, Tensor | None]:
            emit(Ran(f"{BACKEND}{name}"))
            return attended(inner)(*args, **kwargs)

        return reporting

    token = _current.set(seen)
    try:
        with (
            attention_functions(reported),
            listening(ForwardCalled, seen.begun),
            counting() as counts,
        ):
            yield
        # Others may launch in here too: the harness scores rows while generate() runs.
        seen.counts.update({name: n for name, n in counts.items() if name.startswith(_COUNTED)})
    finally:
        if seen.emitter is not None:
            seen.emitter.close()
        seen.masks.clear()
        _current.reset(token)


def called(counts: Counter[str]) -> list[str]:
    """The attention functions that were called, by name; empty for a model that asks for none."""
    return sorted(key.removeprefix(BACKEND) for key in counts if key.startswith(BACKEND))

"""What a transformers model really runs: forwards, attention backends, caches and kernels, counted.

Counted at the places that do the work: a hook on the model sees every forward (those of
``generate()`` too), a wrapper around each attention function that a layer asks transformers for
sees which one it calls, and the kernels' own launch record sees the rest.
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
from kvparity.subjects.hf.emit_events import EventEmitter
from kvparity.subjects.hf.protocols import AttentionFunction, Cache, CausalLM, ModelInputs
from kvparity_kernels.launch import record
from kvparity_kernels.order import ReductionOrder


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


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def current() -> Observation:
    """The observation that is active, or a new one with the default order."""
    return _current.get() or Observation()


def _before_forward(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: ModelInputs) -> None:
    seen = _current.get()
    if seen is None:
        return
    ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    cache = cast(Cache | None, given_cache(kwargs))
    filled = 0 if cache is None else int(cache.get_seq_length())
    single = ids.shape[1] == 1 and filled > 0
    seen.counts["forward.decode" if single else "forward.prefill"] += 1
    seen.counts["cache.none" if cache is None else f"cache.{type(cache).__name__}"] += 1
    seen.cache = cache
    seen.masks.clear()
    if seen.emitter is not None:
        seen.emitter.forward(ids.shape[1], cache, kwargs.get("position_ids"))


def watch(model: CausalLM) -> None:
    """Count the forwards of ``model`` from now on, whenever ``observing`` is on."""
    model.register_forward_pre_hook(_before_forward, with_kwargs=True)


@contextmanager
def observing(seen: Observation) -> Iterator[None]:
    """Count into ``seen`` what runs inside."""

    def counting(name: str, function: AttentionFunction) -> AttentionFunction:
        inner = function if seen.emitter is None else seen.emitter.emitting(name, function)

        def counted(*args: object, **kwargs: object) -> tuple[Tensor, Tensor | None]:
            seen.counts[f"backend.{name}"] += 1
            return inner(*args, **kwargs)

        return counted

    token = _current.set(seen)
    try:
        with attention_functions(counting), record() as log:
            yield
        # Others may launch in here too: the harness scores rows while generate() runs.
        seen.counts.update({k: n for k, n in log.counts.items() if k.startswith("attention.")})
    finally:
        if seen.emitter is not None:
            seen.emitter.close()
        seen.masks.clear()
        _current.reset(token)


def called(counts: Counter[str]) -> list[str]:
    """The attention functions that were called, by name; empty for a model that asks for none."""
    return sorted(key[len("backend.") :] for key in counts if key.startswith("backend."))

"""What a transformers model really runs: forwards, attention backends, caches and kernels, counted.

Counted at the places that do the work: a hook on the model sees every forward (those of
``generate()`` too), a wrapper around each registered attention function sees which one a layer
calls, and the kernels' own launch record sees the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kvparity_kernels.launch import record
from kvparity_kernels.order import ReductionOrder


@dataclass
class Observation:
    """Counts of one session or one ``generate()``, and the cache that was seen last.

    Keys: ``forward.prefill`` and ``forward.decode`` (one query, cache not empty) per forward call;
    ``backend.<name>`` per call of a registered attention function (``eager`` is not registered and
    counts nothing); ``cache.<class>`` per forward call; launches of this project's attention
    kernels by their own names (``attention.prefill``, ...).
    """

    order: ReductionOrder = field(default_factory=ReductionOrder)
    counts: Counter[str] = field(default_factory=Counter)
    cache: Any = None


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def current() -> Observation:
    """The observation that is going on, or a fresh one with the default order."""
    return _current.get() or Observation()


def _before_forward(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    seen = _current.get()
    if seen is None:
        return
    ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
    cache = kwargs.get("past_key_values")
    filled = 0 if cache is None else int(cache.get_seq_length())
    single = ids.shape[1] == 1 and filled > 0
    seen.counts["forward.decode" if single else "forward.prefill"] += 1
    seen.counts[f"cache.{type(cache).__name__}"] += 1
    seen.cache = cache


def watch(model: Any) -> None:
    """Count the forwards of ``model`` from now on, whenever ``observing`` is on."""
    model.register_forward_pre_hook(_before_forward, with_kwargs=True)


def _counting(name: str, function: Callable[..., Any], counts: Counter[str]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[f"backend.{name}"] += 1
        return function(*args, **kwargs)

    return counted


@contextmanager
def observing(seen: Observation) -> Iterator[None]:
    """Count into ``seen`` what runs inside."""
    mapping = ALL_ATTENTION_FUNCTIONS
    before = {name: mapping[name] for name in list(mapping)}
    local = dict(mapping._local_mapping)
    token = _current.set(seen)
    try:
        for name, function in before.items():
            mapping[name] = _counting(name, function, seen.counts)
        with record() as log:
            yield
        # Others may launch in here too: the harness scores rows while generate() runs.
        seen.counts.update({k: n for k, n in log.counts.items() if k.startswith("attention.")})
    finally:
        _current.reset(token)
        mapping._local_mapping.clear()
        mapping._local_mapping.update(local)


def called(counts: Counter[str]) -> list[str]:
    """The attention backends that were called, by name; empty for ``eager``."""
    return sorted(key[len("backend.") :] for key in counts if key.startswith("backend."))

"""Bytes of a coded cache: by calculation at any length, and of stores that are really allocated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.labs.codec.coding import Coding, encode, using
from kvparity.labs.codec.honesty import far, nbytes
from kvparity.labs.codec.layers import LayerKV, stored
from kvparity.labs.codec.protocol import NOTHING
from kvparity.labs.codec.session import live, reach
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.record.execute import at_work
from kvparity.subjects.base import CacheView, LayeredCache, Subject


@dataclass(frozen=True)
class Size:
    """Bytes of the keys and values of one sequence of ``length`` tokens."""

    length: int
    calculated: int
    measured: int


def token_bytes(coding: Coding, layer: int, shape: LayerKV, execution: torch.dtype) -> float:
    """Bytes that one token takes in one stored layer; exact layers keep the execution dtype."""
    if layer not in coding.layers:
        return 2.0 * shape.kv_heads * shape.head_dim * execution.itemsize
    total = 0.0
    for _, codec in coding.pair.parts:
        with using(codec):
            total += codec.bytes_per_token(shape.kv_heads, shape.head_dim)
    return total


def calculated(plan: Sequence[LayerKV], coding: Coding, length: int, execution: torch.dtype) -> int:
    """Bytes of one sequence by the plan: windows stop growing, sharing layers cost nothing.

    What a codec fixes once per layer is not counted.
    """
    return round(
        sum(
            shape.tokens(length) * token_bytes(coding, layer, shape, execution)
            for layer, shape in enumerate(stored(plan))
        )
    )


def plain(plan: Sequence[LayerKV], length: int, execution: torch.dtype) -> int:
    """Bytes of one sequence in the execution dtype."""
    return sum(
        x.tokens(length) * 2 * x.kv_heads * x.head_dim * execution.itemsize for x in stored(plan)
    )


def fill(subject: Subject, ids: Sequence[int]) -> CacheView:
    """The subject's cache after a prompt of ``ids``, in one step."""
    member = Member("(bytes)", len(ids), len(ids))
    with torch.inference_mode(), at_work():
        session = subject.session([member], Layout(chunk=len(ids)))
        span = Span(0, 0, len(ids), rows_from=len(ids))
        for _ in session.forward((span,), [list(ids)]):
            pass
        return reach(session)


def measured(cache: CacheView, coding: Coding, length: int, execution: torch.dtype) -> int:
    """Bytes of stores that are allocated for what ``cache`` holds of its one sequence.

    A store of a windowed layer has as many slots as the cache's own window (transformers keeps one
    key less between two steps, and gets the last one with the query). Shapes and windows come from
    the cache alone, never from a plan.
    """
    held: dict[str, Tensor] = {}
    for layer in range(cache.layers()):
        span = live(cache, layer, Span(0, 0, length, rows_from=length))
        window = cache.window(layer) if isinstance(cache, LayeredCache) else None
        slots = min(length, window or length)
        start = max(span.start, span.stop - slots)
        tensors = cache.read(layer, 0, start, span.stop)
        parts = zip(coding.pair.parts, tensors, coding.fixed[layer], strict=True)
        for (name, codec), x, fixed in parts:
            missing = slots - len(x)
            whole = torch.cat([x[:missing], x]) if missing else x
            if layer in coding.layers:
                coded = encode(codec, whole, fixed, NOTHING)
                held |= {f"{layer}.{name}.{key}": codes for key, codes in coded.items()}
            else:
                held[f"{layer}.{name}"] = whole.to(execution, copy=True)
    return nbytes(held)


def check(
    plan: Sequence[LayerKV], coding: Coding, caches: dict[int, CacheView], execution: torch.dtype
) -> tuple[Size, ...]:
    """Calculated and measured bytes at every length of ``caches``.

    Raises ``SubjectError`` where they are not the same to a thousandth.
    """
    sizes = []
    for length, cache in caches.items():
        size = Size(
            length,
            calculated(plan, coding, length, execution),
            measured(cache, coding, length, execution),
        )
        if far(size.calculated, size.measured):
            raise SubjectError(
                f"with codec {coding.pair.name} the cache of {length} tokens should take "
                f"{size.calculated} bytes by the layer plan, but its stores take {size.measured}; "
                "the plan and the cache do not agree on layers, heads or windows"
            )
        sizes.append(size)
    return tuple(sizes)

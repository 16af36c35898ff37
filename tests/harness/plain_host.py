"""A host of sessions whose model computes nothing: its keys and logits say what it was given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, Gemma3TextConfig, StaticCache

from kvparity.plan.schedule import Span
from kvparity.subjects.hf.run_counts import Observation
from kvparity_kernels.order import ReductionOrder

WINDOW, VOCAB = 4, 3
CONFIG = Gemma3TextConfig(
    vocab_size=VOCAB,
    hidden_size=4,
    intermediate_size=4,
    num_hidden_layers=2,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=2,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention"],
)


class Output(dict[str, Any]):
    """As transformers' ``ModelOutput``: fields that are items, too."""

    logits: Tensor


class Model:
    """Writes (token, position) as the key of each column, their negatives as its value.

    Logits are (token, position, column); ``calls`` keeps what it was given.
    """

    config = CONFIG

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.columns = 0  # of the last call that had no cache
        self.made: Any = None  # a cache that it returns though it was given none

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
    ) -> Output:
        more = {"use_cache": use_cache, "logits_to_keep": logits_to_keep, "mask": attention_mask}
        self.calls.append({"ids": input_ids, "positions": position_ids, **more})
        count = input_ids.shape[1]
        told = torch.stack([input_ids, position_ids], dim=2).float()
        before = 0
        if past_key_values is not None:
            before = int(past_key_values.get_seq_length(1))
            for layer in range(2):
                past_key_values.update(told[:, None] + layer, -told[:, None] - layer, layer)
        columns = torch.arange(before, before + count).expand_as(input_ids)
        logits = torch.cat([told, columns[:, :, None]], dim=2).double()
        found = Output(past_key_values=self.made)
        found.logits = logits[:, -logits_to_keep:] if logits_to_keep else logits
        return found

    def __call__(self, **inputs: Any) -> Output:
        return self.forward(**inputs)


class Host:
    """``kind``: the caches that it makes; ``asked``: for how many rows and tokens."""

    device = torch.device("cpu")
    pad_token = 99
    order = ReductionOrder()

    def __init__(self, kind: str = "dynamic", unused: float = 32.0) -> None:
        self.model, self.kind, self.unused = Model(), kind, unused
        self.asked: list[tuple[int, int | None]] = []
        self.emitters: list[Any] = []

    def observing(self, seen: Observation) -> Any:
        self.emitters.append(seen.emitter)
        return nullcontext()

    def new_cache(self, *, batch: int, capacity: int | None) -> Any:
        self.asked.append((batch, capacity))
        if self.kind == "dynamic" or capacity is None:
            return DynamicCache(config=CONFIG)
        return StaticCache(config=CONFIG, max_cache_len=capacity)


class Columns:
    """One layer of one sequence as a list of the columns that it holds, by the rules alone.

    ``limit``: how many it keeps (None: all). A column is found in the last call's past as well.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit, self.held, self.count = limit, list[int](), 0
        self.before: list[int] = []
        self.last = 0  # the columns before the last run

    def run(self, tokens: int) -> None:
        self.before, self.last = (self.held if self.count else []), self.count
        self.held = [*self.held, *range(self.count, self.count + tokens)]
        self.count += tokens
        if self.limit is not None:
            self.held = [c for c in self.held if c >= self.count - self.limit]

    def cut(self, keep: int, needed: int | None) -> bool:
        """Whether it can go back: the last ``needed`` columns must be somewhere."""
        if keep >= self.count:
            self.before = []
            return True
        there = {*self.before, *self.held}
        first = 0 if needed is None else max(0, keep - needed)
        if any(c not in there for c in range(first, keep)):
            return False
        oldest = 0 if self.limit is None else max(0, keep - self.limit)
        self.held = [c for c in range(oldest, keep) if c in there]
        self.count, self.before = keep, []
        return True

    def clear(self) -> None:
        self.held, self.before, self.count = [], [], 0


def span_ids(sequence: int, start: int, stop: int) -> Sequence[int]:
    """The tokens of a sequence: its number in tens, and the place."""
    return [100 * (sequence + 1) + place for place in range(start, stop)]


def run(session: Any, sequence: int, start: int, stop: int, rows_from: int | None = None) -> Any:
    span = Span(sequence, start, stop, start if rows_from is None else rows_from)
    return list(session.forward((span,), [span_ids(sequence, start, stop)]))


def limits(kind: str) -> tuple[int, None]:
    return (WINDOW - 1 if kind == "dynamic" else WINDOW), None

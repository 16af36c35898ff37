"""Sessions over a transformers model: its own forward, step by step, as its user would call it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor
from transformers import StaticCache

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.relied.transformers import cache_argument, keeps_logits, made_cache
from kvparity.plan.schedule import FAR, Layout, Member, Step
from kvparity.subjects import events
from kvparity.subjects.hf import caches
from kvparity.subjects.hf.emit_events import EventEmitter
from kvparity.subjects.hf.operations import reporting
from kvparity.subjects.hf.protocols import Cache, CausalLM, ModelInputs
from kvparity.subjects.hf.run_counts import Observation
from kvparity_kernels.order import ReductionOrder

ROWS = 256  # logits rows converted to float32 at a time


class Host(Protocol):
    """What a session needs of its subject."""

    model: CausalLM
    device: torch.device
    pad_token: int
    order: ReductionOrder  # of the kvparity attention
    unused: float  # what unused slots of a static cache hold

    def observing(self, seen: Observation) -> AbstractContextManager[None]:
        """Count what runs inside into ``seen`` and check it on the way out."""
        ...

    def new_cache(self, *, batch: int, capacity: int | None) -> Cache:
        """An empty cache of the contract's kind; a dynamic one without a ``capacity``."""
        ...


def float_rows(logits: Tensor) -> Iterator[Tensor]:
    """Blocks of ``[r, vocab]`` in float32: exact, and what ``generate()`` shows of its logits."""
    for start in range(0, len(logits), ROWS):
        yield logits[start : start + ROWS].float()


def refused(layout: Layout, members: Sequence[Member], step: Step) -> str | None:
    """Why a transformers model cannot compute this step in one forward, or None if it can."""
    if layout.far:
        return FAR
    if layout.batch == "packed":
        if len(step) > 1:
            return (
                f"a packed step of {len(step)} sequences: a transformers model takes one, or a "
                "padded batch; use the paths padded-left or padded-right"
            )
        if not layout.cached and (
            step[0].start or step[0].stop != members[step[0].sequence].length
        ):
            return "part of a sequence without a cache: without one it must be computed at once"
        return None
    if not layout.cached:
        return "a padded batch without a cache; use the path uncached, a sequence at a time"
    if sorted(span.sequence for span in step) == list(range(len(members))):
        return None
    return (
        f"a padded step with {len(step)} of {len(members)} sequences: a rectangle needs all of "
        "them in every step; give all prompts the same number of new tokens"
    )


class _Session:
    """What both layouts share: the places of the members, and one observed call of the model."""

    def __init__(
        self, host: Host, members: Sequence[Member], layout: Layout, places: list[caches.CacheRow]
    ) -> None:
        self.host, self.members, self.layout, self.places = host, members, layout, places
        self.seen = Observation(order=host.order)
        self.config = host.model.config.get_text_config(decoder=True)

    def observed(self) -> Counter[str]:
        """What really ran; see ``kvparity.subjects.hf.run_counts.Observation``."""
        return Counter(self.seen.counts)

    def cache(self) -> caches.SessionCache | None:
        """The caches, by sequence and position; None for a layout without one."""
        if not self.layout.cached:
            return None
        return caches.SessionCache(self.places, self.config, self.host.unused)

    def _call(self, cache: Cache | None, inputs: ModelInputs) -> Tensor:
        cached, name = self.layout.cached, cache_argument(self.host.model)
        try:
            with torch.inference_mode(), self.host.observing(self.seen):
                found = self.host.model(**{name: cache}, use_cache=cached, **inputs)
        except torch.cuda.OutOfMemoryError as error:
            raise SubjectError(f"the model's forward is out of device memory: {error}") from error
        if not cached and made_cache(found) is not None:
            raise SubjectError(
                f"{type(self.host.model).__name__} made a cache although it was called without one"
            )
        return found.logits

    def _check(self, step: Step, ids: Sequence[Sequence[int]]) -> None:
        reason = refused(self.layout, self.members, step)
        if reason is not None:
            raise UnsupportedError(reason)
        for span, part in zip(step, ids, strict=True):
            filled = len(self.places[span.sequence].slots)
            name = self.members[span.sequence].id
            if span.start != filled:
                raise ValueError(f"{name} is filled to {filled}, but a span starts at {span.start}")
            if len(part) != span.stop - span.start:
                raise ValueError(f"{name}: {len(part)} ids for {span.start}..{span.stop}")

    def _integers(self, values: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.host.device)


class Packed(_Session):
    """One sequence per step, each with a cache of its own.

    A sequence in one whole span is a rescoring: nothing comes after it, so it has the dynamic
    cache that the model's forward makes by itself, never a static one. A cache whose prefix others
    share records its past (``activate_past_recording``), so that transformers can crop a copy.
    """

    def __init__(self, host: Host, members: Sequence[Member], layout: Layout) -> None:
        super().__init__(host, members, layout, [caches.CacheRow(None) for _ in members])
        # A copy of a shared static cache must have room for the sequence that continues it.
        shared = any(member.shared for member in members)
        self.longest = max(member.length for member in members) if shared else 0

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Run one span through the model's forward; float32 rows."""
        self._check(step, ids)
        span = step[0]
        place = self.places[span.sequence]
        if self.layout.cached:
            if span.start == 0:
                self._begin(place, self.members[span.sequence], span.stop)
            place.remember()
        first = span.start + span.position_shift
        positions = range(first, first + len(ids[0]))
        # Whole logits, as a user who rescores has them; one row where none is wanted.
        inputs: ModelInputs = {
            "input_ids": self._integers([ids[0]]),
            "position_ids": self._integers([positions]),
        }
        if not len(span.rows) and keeps_logits(self.host.model):
            inputs["logits_to_keep"] = 1
        listener = events.current()
        if listener is not None:
            self.seen.emitter = EventEmitter(
                listener, self.config, sequence=span.sequence, filled=span.start
            )
        try:
            name = self.members[span.sequence].id
            own, seen = ([(name, p) for p in range(b, span.stop)] for b in (span.start, 0))
            with reporting(self.host.model, [own], [seen]):
                logits = self._call(place.cache, inputs)[0]
        finally:
            self.seen.emitter = None
        place.slots.extend(range(span.start, span.stop))
        place.columns = span.stop
        if len(span.rows):
            begin = span.rows.start - span.start
            yield from float_rows(logits[begin : begin + len(span.rows)])

    def _begin(self, place: caches.CacheRow, member: Member, stop: int) -> None:
        """A cache for a sequence that begins: the one that a reset left, if it will do."""
        room = (self.longest or member.length) + self.layout.slack
        fresh = self.host.new_cache(batch=1, capacity=None if stop == member.length else room)
        if type(place.cache) is not type(fresh):
            place.cache = fresh
        if member.shared and hasattr(place.cache, "activate_past_recording"):
            place.cache.activate_past_recording()

    def reset(self) -> None:
        """``reset()`` of every cache; what a static one still holds becomes garbage."""
        with torch.inference_mode():
            for place in self.places:
                place.reset(self.host.unused)

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """A deep copy of another sequence's cache, cropped, as for a prompt that requests share.

        Raises:
            UnsupportedError: the sequence is not empty, or a sliding layer has dropped keys.
        """
        if self.places[sequence].slots:
            raise ValueError(f"{self.members[sequence].id} is not empty and cannot adopt")
        with torch.inference_mode():
            self.places[sequence] = self.places[donor].prefix(tokens, self.host.unused)


class Padded(_Session):
    """All sequences in each step, as a rectangle padded on one side, in one cache."""

    def __init__(self, host: Host, members: Sequence[Member], layout: Layout) -> None:
        self.left = layout.batch == "left"
        self.capacity = max(m.length for m in members) + layout.slack
        cache = host.new_cache(batch=len(members), capacity=self.capacity)
        places = [caches.CacheRow(cache, row) for row in range(len(members))]
        super().__init__(host, members, layout, places)
        self.mask = torch.zeros(len(members), 0, dtype=torch.int64, device=host.device)

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Run the rectangle through the model's forward; float32 rows in span order."""
        self._check(step, ids)
        if events.current() is not None:
            raise UnsupportedError(
                "what happens inside a padded batch of a transformers model is not reported; "
                "use the paths decode, chunked(n) or streamed(n)"
            )
        width, columns = max(len(part) for part in ids), self.mask.shape[1]
        if isinstance(self.places[0].cache, StaticCache) and columns + width > self.capacity:
            raise SubjectError(
                f"the static cache has {self.capacity} slots, but the padded batch needs "
                f"{columns + width}; use cache: dynamic or prompts of more equal length"
            )
        tokens = [[self.host.pad_token] * width for _ in self.members]
        positions = [[0] * width for _ in self.members]
        real = [[0] * width for _ in self.members]
        places: list[list[tuple[str, int] | None]] = [[None] * width for _ in self.members]
        offsets = []
        for span, part in zip(step, ids, strict=True):
            size, row, first = len(part), span.sequence, span.start + span.position_shift
            at = width - size if self.left else 0
            offsets.append(at)
            tokens[row][at : at + size] = part
            positions[row][at : at + size] = range(first, first + size)
            real[row][at : at + size] = [1] * size
            name = self.members[row].id
            places[row][at : at + size] = [(name, p) for p in range(span.start, span.stop)]
            self.places[row].slots.extend(range(columns + at, columns + at + size))
        self.mask = torch.cat([self.mask, self._integers(real)], dim=1)
        for place in self.places:
            place.columns = columns + width
        inputs: ModelInputs = {
            "input_ids": self._integers(tokens),
            "position_ids": self._integers(positions),
            "attention_mask": self.mask,
        }
        read = [self._columns(row) for row in range(len(self.members))]
        with reporting(self.host.model, places, read):
            logits = self._call(self.places[0].cache, inputs)
        for span, at in zip(step, offsets, strict=True):
            begin = at + span.rows.start - span.start
            if len(span.rows):
                yield from float_rows(logits[span.sequence, begin : begin + len(span.rows)])

    def _columns(self, row: int) -> list[tuple[str, int] | None]:
        """The position in each column of the cache, None for padding."""
        found: list[tuple[str, int] | None] = [None] * self.mask.shape[1]
        for position, column in enumerate(self.places[row].slots):
            found[column] = self.members[row].id, position
        return found

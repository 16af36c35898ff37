"""The one seam: what kvparity asks of a thing under verification.

A subject opens sessions. A session holds the KV cache of some sequences and computes steps. All
else (schedules, sampling, scoring, comparing, judging) is the harness's and the same for every
subject.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from kvparity.schedule import Layout, Member, Plan, Step


class SubjectError(Exception):
    """The subject broke its promise: wrong shape or dtype, an exception, memory. Exit code 3."""


class UnsupportedError(Exception):
    """A path, setting or checkpoint that cannot be used, in words for a person. Exit code 2."""


class CacheView(Protocol):
    """The cache of a session, open to inspection and to planted defects."""

    def layers(self) -> int:
        """The number of layers that hold keys and values."""
        ...

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Copies of keys and values ``[stop-start, kv_heads, head_dim]`` as they are stored."""
        ...

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        """Overwrite stored keys and values from position ``start`` on."""
        ...


class Session(Protocol):
    """One run over fixed members. Not reusable."""

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step; ``ids[i]`` are the token ids of ``step[i]``.

        Yields blocks of result rows ``[r, width]``, together exactly the wanted rows
        (``Span.rows``) in span order: logits ``[r, vocab]`` in the subject's own dtype, or for an
        attention subject float32 ``[r, q_heads * head_dim (+ q_heads for lse)]``.
        The step is fully computed once the iterator is exhausted.
        """
        ...

    def observed(self) -> Counter[str]:
        """What really ran so far, counted: ``attention.prefill``, ``attention.decode``, ...

        Observed at the place that does the work, never derived from what was asked for.
        """
        ...

    def cache(self) -> CacheView | None:
        """The cache, or None where the subject's cache cannot be reached."""
        ...


@runtime_checkable
class Generates(Protocol):
    """A subject with a generation loop of its own (transformers' ``generate()``)."""

    def generate(
        self, member: Member, prompt: Sequence[int], choose: Callable[[int, Tensor], int]
    ) -> Counter[str]:
        """Run the subject's own loop for one sequence until ``member.length`` tokens are there.

        ``choose(position, logits[vocab]) -> int`` picks the token at ``position`` and sees the raw
        float32 row it is chosen from, one row at a time: nothing else leaves the loop. Returns
        what really ran, counted as in ``Session.observed``.
        """
        ...


class Subject(Protocol):
    """A thing under verification, loaded, in one execution dtype, on one device."""

    @property
    def vocab(self) -> int:
        """Token ids are below it; 0 for an attention subject, which has no tokens."""
        ...

    @property
    def max_positions(self) -> int:
        """The longest sequence that it takes."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def unsupported(self, plan: Plan) -> str | None:
        """Why this plan (its steps, layout, or ``generate()``) cannot be run, or None if it can."""
        ...

    def session(self, members: Sequence[Member], layout: Layout) -> Session:
        """Open a session; every unused cache slot, pad and workspace holds NaN."""
        ...

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """What is compared, float32 ``[r, width]``.

        For a language model the logprobs of ``targets`` (int64 ``[r]``), one column per
        temperature, computed from logits. For an attention subject the rows themselves.
        """
        ...

    def oracle(self, member: Member, ids: Sequence[int], rows: range) -> Tensor:
        """The same rows in float64 from the float64 twin, ``[len(rows), width]``."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What was really loaded and is really used, for the report (JSON values only).

        A subject that was asked for a backend puts it under ``requested`` and what it reads back
        under ``used``, both mappings; where they part, the verdict is void.
        """
        ...

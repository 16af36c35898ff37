"""The one seam: what kvparity asks of a thing under verification.

A subject opens sessions. A session holds the KV cache of some sequences and computes steps. All
else (schedules, sampling, scoring, comparing, judging) is the harness's and the same for every
subject.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kvparity.core.errors import OracleError as OracleError
from kvparity.core.errors import SubjectError as SubjectError
from kvparity.core.errors import UnsupportedError as UnsupportedError
from kvparity.plan.schedule import Layout, Member, Plan, Step
from kvparity_contracts.json_types import JsonObject


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


@runtime_checkable
class LayeredCache(CacheView, Protocol):
    """A cache whose layers need not hold every position.

    Layers are counted by what is stored: a layer that reads another one's cache has none. Where
    codes are stored, ``read`` gives what a reader gets (decoded, in the execution dtype), and
    ``write`` encodes.
    """

    def live(self, layer: int, sequence: int) -> range:
        """The positions that the layer holds now; a window's oldest ones are gone."""
        ...

    def window(self, layer: int) -> int | None:
        """How many keys a query of this layer sees, its own included; None: all."""
        ...

    def owner(self, model_layer: int) -> int:
        """The stored layer that layer ``model_layer`` of the model reads."""
        ...

    def round_trip(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What a reader gets of fresh ``k``, ``v`` ``[n, kv_heads, head_dim]`` as declared."""
        ...

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions from ``length`` on, so that they can be computed again."""
        ...


@runtime_checkable
class Addressed(Protocol):
    """A cache that says where it keeps a key."""

    def address(self, layer: int, sequence: int, position: int) -> tuple[int, int]:
        """The slot of a stored layer, and the slots of a page (0: there are none)."""
        ...


@runtime_checkable
class Reusable(Protocol):
    """A session that outlives its first use."""

    def reset(self) -> None:
        """Forget all sequences; everything that the cache held becomes NaN, or as good."""
        ...

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Fill an empty sequence with the first ``tokens`` tokens of ``donor`` from the cache."""
        ...


@runtime_checkable
class Faulting(Protocol):
    """A session that looks at more than the rows that are compared."""

    def faults(self) -> Sequence[str]:
        """What was wrong so far with rows of no sequence, in words; each makes a case differ."""
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


@dataclass(frozen=True)
class SequenceAnswer:
    """What a whole sequence gave. ``rows``: the positions that are compared. ``targets`` int64
    ``[rows]``: the tokens behind them; ``values`` float32 ``[rows]``: their logprobs."""

    rows: tuple[int, ...]
    targets: Tensor
    values: Tensor


@dataclass(frozen=True)
class WholeAnswer:
    """What a plan gave, by sequence. ``unproved``: why it is not known that the plan ran as it
    says, or None; then equal bits show nothing."""

    sequences: Mapping[int, SequenceAnswer]
    observed: Counter[str]
    unproved: str | None = None


@runtime_checkable
class AnswersWhole(Protocol):
    """A subject that computes whole sequences and gives logprobs alone: a server.

    It has no sessions, steps, rows of logits or caches.
    """

    def answer(
        self,
        plan: Plan,
        tokens: Sequence[Sequence[int]],
        before: Sequence[Sequence[int]] | None,
        temperature: float,
    ) -> WholeAnswer:
        """Run a plan. ``tokens[i]``: at least the prompt of member ``i``; a plan that scores needs
        all of them. What decodes draws its tokens itself, whatever ``tokens`` holds behind the
        prompt. ``before``: the tokens of the steps before a reset."""
        ...


@runtime_checkable
class NamesColumns(Protocol):
    """A subject whose rows have parts with names of their own."""

    def column(self, number: int) -> str:
        """The name of a column of its rows, such as ``head 3, dim 17``."""
        ...


def column_name(subject: Subject, number: int) -> str:
    """What a person calls a column of the subject's rows; of logits the token id."""
    return subject.column(number) if isinstance(subject, NamesColumns) else f"token {number}"


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

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        """The same rows in float64 from the float64 twin, ``[len(rows), width]``."""
        ...

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """What was really loaded and is really used, for the report (JSON values only).

        ``ran``: what was observed where it was used (``Session.observed``), so that the answer
        does not depend on what else this process computed. None: all that it ever ran.

        A subject that was asked for a backend puts it under ``requested`` and what it reads back
        under ``used``, both mappings; where they differ, the verdict is void.
        """
        ...

"""Sessions of the reference decoder that run traced programs instead of its own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.plan.schedule import Layout, Member, Plan, Program, Span, Step
from kvparity.subjects.decoder.batch import StepRows, pack
from kvparity.subjects.decoder.cache import KVCache
from kvparity.subjects.decoder.model import DecoderModel
from kvparity.subjects.decoder.session import DecoderSession
from kvparity.subjects.decoder.storage import Storage
from kvparity.subjects.decoder.weights import DecoderWeights
from kvparity.subjects.export.compiling import Compiled
from kvparity.subjects.export.operators import bound
from kvparity.subjects.export.programs import Sample, block_rows, trace, trace_planted
from kvparity.subjects.export.step import batch_inputs, cache_inputs
from kvparity_kernels.order import ReductionOrder

Run = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class StepKind:
    """What a program is made for. A chunk has a size of its own where it is one token, or a ring's.

    ``chunk``: of a ring its size in tokens, else 1 for steps of one token, else 0.
    """

    decode: bool
    page: int | None
    chunk: int | None
    storage: Storage
    twin: bool
    order: ReductionOrder


@dataclass
class DecoderPrograms:
    """The programs over some weights, made when first needed; sessions share them.

    Attention and the operations beside it are no part of a program: they are bound when it runs.
    ``made``: the exported programs by what they were made for, for inspection.
    """

    weights: DecoderWeights
    made: dict[StepKind, ExportedProgram] = field(default_factory=dict)
    ready: dict[tuple[StepKind, Program], Run] = field(default_factory=dict)

    def get(
        self,
        model: DecoderModel,
        storage: Storage,
        layout: Layout,
        decode: bool,
        sample: Callable[[], tuple[Sample, Sample]],
    ) -> Run:
        """What computes a step of this kind in this layout."""
        chunk = layout.chunk if storage.ring else int(layout.chunk == 1)
        key = StepKind(decode, layout.page, chunk, storage, model.twin, model.order)
        if key not in self.made:
            self.made[key] = trace(model, sample())
        run = (key, layout.program)
        if run not in self.ready:
            self.ready[run] = runnable(self.made[key], layout.program)
        return self.ready[run]


def runnable(program: ExportedProgram, how: Program) -> Run:
    """A program as it is run: by torch's own interpreter, or as what inductor makes of it."""
    module = program.module()
    return Compiled(module, dynamic=True) if how == "compiled" else module


def refused(plan: Plan) -> str | None:
    """Why this plan cannot be run by programs, or None."""
    reason = _layout_refused(plan.layout)
    if reason is None and any(len(step) != 1 for step in plan.schedule):
        reason = "a traced program takes one sequence per step; use decode, chunked or streamed"
    return reason


def _layout_refused(layout: Layout) -> str | None:
    if not layout.cached:
        return "a traced program is given a cache; use the uncached path without one"
    if layout.batch != "packed":
        return "a traced program takes a packed batch, not a padded one"
    return None


class ProgramSession(DecoderSession):
    """Runs steps through programs; see ``kvparity.subjects.base.Session``.

    ``constants``: a planted defect, see ``Step``: decode is traced at the session's first decode
    step with these inputs as they are then, and nobody inspects it.
    """

    def __init__(
        self,
        model: DecoderModel,
        programs: DecoderPrograms,
        members: Sequence[Member],
        layout: Layout,
        *,
        storage: Storage,
        seed: int,
        constants: frozenset[str] = frozenset(),
    ) -> None:
        reason = _layout_refused(layout)
        if reason is not None:
            raise UnsupportedError(reason)
        super().__init__(model, members, layout, storage=storage, seed=seed)
        self.programs, self.seed, self.constants = programs, seed, constants
        self.ran: Counter[str] = Counter()
        self._planted: Run | None = None

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step of one span; float32 logits ``[r, vocab]`` of the wanted rows."""
        if len(step) != 1:
            raise UnsupportedError(f"a traced program takes one sequence per step, not {len(step)}")
        (span,) = step
        wanted, most = len(span.rows), block_rows(self.model)
        if wanted > most:
            raise UnsupportedError(
                f"a traced program gives at most {most} rows of {self.model.config.vocab} logits "
                f"per step, and {wanted} are wanted; use smaller chunks"
            )
        # A program always computes a row; one that nobody wants is dropped.
        asked = span if wanted else replace(span, rows_from=span.stop - 1, rows_to=None)
        cache = self.cache()
        assert cache is not None  # the layout was refused otherwise
        batch = self._packed(asked, ids[0], cache)
        run = self._program(span.decode, batch, cache)
        with (
            self._watched(f"in a traced step of {len(batch.ids)} rows"),
            bound(self.model.attention, self.model.ops),
        ):
            rows = run(batch_inputs(batch, cache), cache_inputs(cache))
        self.ran["program.decode" if span.decode else "program.prefill"] += 1
        cache.advance(step)
        if wanted:
            yield rows

    def observed(self) -> Counter[str]:
        """Kernels launched, and ``program.prefill``, ``program.decode``: programs that returned."""
        return super().observed() + self.ran

    def _packed(self, span: Span, ids: Sequence[int], cache: KVCache) -> StepRows:
        return pack(
            (span,), [ids], cache, self.layout,
            vocab=self.model.config.vocab, positions=len(self.model.cos),
        )  # fmt: skip

    def _program(self, decode: bool, batch: StepRows, cache: KVCache) -> Run:
        if not (decode and self.constants):
            return self.programs.get(
                self.model, self.storage, self.layout, decode, lambda: self._samples(decode)
            )
        if self._planted is None:
            program = trace_planted(self.model, (batch, cache), self.constants)
            self._planted = runnable(program, self.layout.program)
        return self._planted

    def _samples(self, decode: bool) -> tuple[Sample, Sample]:
        """Two steps of the same kind in other sizes: no size of one is that of the other."""
        with torch.inference_mode(False):
            return self._sample(decode, (37, 23), 7, 3), self._sample(decode, (53, 29, 31), 1, 1)

    def _sample(self, decode: bool, lengths: tuple[int, ...], rows: int, wanted: int) -> Sample:
        members = [Member(f"(sample)/{i}", n) for i, n in enumerate(lengths)]
        session = DecoderSession(
            self.model, members, self.layout, storage=self.storage, seed=self.seed
        )
        start = 5 + len(lengths)
        rows = 1 if decode else min(rows, self.layout.chunk or rows)
        wanted = min(rows, wanted)
        span = Span(1, start, start + rows, start + rows - wanted, decode=decode)
        cache = session.cache()
        if cache is None:
            raise SubjectError("a traced program needs a cache")
        return self._packed(span, [1] * rows, cache), cache


class TraceableDecoder(Protocol):
    """What programs need of a subject over the reference decoder."""

    programs: dict[str, object]
    model: DecoderModel
    storage: Storage
    seed: int


def open_session(
    subject: TraceableDecoder,
    members: Sequence[Member],
    layout: Layout,
    *,
    constants: frozenset[str] = frozenset(),
) -> ProgramSession:
    """A session of the subject that runs programs; they are kept with the subject.

    Raises ``UnsupportedError`` for a layout that programs cannot do.
    """
    programs = subject.programs.get("decoder")
    if not isinstance(programs, DecoderPrograms) or programs.weights is not subject.model.weights:
        programs = subject.programs["decoder"] = DecoderPrograms(subject.model.weights)
    return ProgramSession(
        subject.model,
        programs,
        members,
        layout,
        storage=subject.storage,
        seed=subject.seed,
        constants=constants,
    )

"""A session of a pair of attention kernels: draws, stores, calls, and tells listeners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.core.errors import SubjectError
from kvparity.plan.schedule import Layout, Member, Span, Step
from kvparity.subjects import events
from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall, StoredKV
from kvparity.subjects.decoder.placement import Region
from kvparity.subjects.decoder.poisoned_store import Stored
from kvparity.subjects.pair import emit_events
from kvparity.subjects.pair.append import FreshKeys, append
from kvparity.subjects.pair.batch import decoded, fault_of, sizes, with_empties
from kvparity.subjects.pair.cache import FIRST, KVStores, PairCache
from kvparity.subjects.pair.cache_layouts import laid_out
from kvparity.subjects.pair.fresh import fresh
from kvparity.subjects.pair.inputs import Inputs, strided
from kvparity.subjects.pair.model import PairModel
from kvparity.subjects.pair.sparse import spread_for
from kvparity_kernels.stream import listening

LEAD = 2
"""Sequences that hold nothing, before and behind the members."""


class AttentionSession:
    """Runs the pair over the steps; its unused slots are NaN."""

    def __init__(self, subject: PairModel, members: Sequence[Member], layout: Layout):
        self.subject, self.members, self.layout = subject, tuple(members), layout
        self._empties = layout.empties and subject.empties
        nobody = [0] * (LEAD * self._empties)
        # A rectangle, whatever the batch, or pages.
        place = replace(layout, batch="right", page=layout.page or subject.page)
        region = Region(
            [*nobody, *(subject.keys(m.id, m.length) for m in members), *nobody] or [0],
            place,
            subject.seed,
        )
        slots = region.placement.slots if layout.cached else 0
        self._cache = PairCache(
            members,
            region,
            self._stores(slots),
            self._stores(slots),
            window=subject.window,
            execution=subject.execution,
            lead=len(nobody),
        )
        self._faults: list[str] = []
        self._counts: Counter[str] = Counter()
        self._led: Counter[tuple[str, int]] = Counter()
        self._width: int | None = None

    def _stores(self, slots: int) -> KVStores:
        heads, keys = self.subject.heads, self._stored(slots, 0, self.subject.heads.dim)
        if self.subject.latent:
            return KVStores(keys, keys, heads.values)
        return KVStores(keys, self._stored(slots, 1, heads.values))

    def _stored(self, slots: int, which: int, width: int) -> Stored:
        subject = self.subject
        prompts = [subject.keys(member.id, member.prompt) for member in self.members]
        heads_first = subject.layout == "head-slot"
        spread = spread_for(max(prompts, default=1), heads_first=heads_first)
        return Stored(
            slots,
            subject.heads.kv,
            width,
            subject.store,
            heads_first=heads_first,
            lay=spread.lay if self.layout.far else None,
            static=subject.static_scale("kv"[which]),
            device=subject.device,
        )

    def observed(self) -> Counter[str]:
        """Calls of the pair."""
        return Counter(self._counts)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        def prefill(call: PairPrefillCall) -> None:
            self._counts["attention.prefill"] += 1

        def decode(call: PairDecodeCall) -> None:
            self._counts["attention.decode"] += 1

        with listening(PairPrefillCall, prefill), listening(PairDecodeCall, decode):
            yield

    def faults(self) -> Sequence[str]:
        """What was wrong with rows that nobody compares."""
        return tuple(self._faults)

    def cache(self) -> PairCache | None:
        """The cache; None where nothing is cached."""
        return self._cache if self.layout.cached else None

    def reset(self) -> None:
        """Forget all sequences."""
        self._cache.reset()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        """Copy what a donor has in the cache."""
        self._cache.adopt(sequence, donor, tokens)

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Draw q, k, v of the step, store k and v, and call the kernel of each kind of span."""
        found = [self._fresh(span, own) for span, own in zip(step, ids, strict=True)]
        listener, tokens = events.current(), [each for _, each in found]
        if self.layout.cached:
            self._store([each for each in tokens if len(each.k)])
        for each in tokens:
            if listener is not None:
                listener.wrote(events.Wrote(0, each.sequence, each.start, each.k, each.v))
        outputs: dict[int, Tensor] = {}
        for decode in (False, True):
            called = [i for i, span in enumerate(step) if not span.fill]
            chosen = [i for i in called if self._decodes(step[i]) == decode]
            if not chosen:
                continue
            spans = [step[i] for i in chosen]
            q = torch.cat([found[i][0] for i in chosen])
            with self._counted():
                if not self.layout.cached:
                    rows = self._whole(q, spans, [tokens[i] for i in chosen])
                else:
                    rows = self._decode(q, spans) if decode else self._prefill(q, spans)
            self._check_width(rows)
            sizes = [span.stop - span.start for span in spans]
            for i, part in zip(chosen, torch.split(rows, sizes), strict=True):
                outputs[i] = part
        for i, span in enumerate(step):
            if len(span.rows):
                yield outputs[i][span.rows.start - span.start : span.rows.stop - span.start]

    def _fresh(self, span: Span, ids: Sequence[int]) -> tuple[Tensor, FreshKeys]:
        held = self.layout.cached and self._cache.filled[span.sequence] > 0
        return fresh(self.subject, self.members[span.sequence], span, ids, held=held)

    def _keys(self, span: Span) -> int:
        """How many keys its sequence has when it is computed."""
        return self.subject.keys(self.members[span.sequence].id, span.stop)

    def _store(self, tokens: Sequence[FreshKeys]) -> None:
        """Into the cache, by the function of the contract or by the harness."""
        writer = self.subject.pair.append
        if writer is None:
            for each in tokens:
                self._cache.write(0, each.sequence, each.start, each.k, each.v)
            return
        self._counts["attention.append"] += 1
        self._found(
            append(writer, self._cache, tokens, padding=self._empties, layout=self.subject.layout)
        )

    def _found(self, fault: str | None) -> None:
        if fault is not None and fault not in self._faults:
            self._faults.append(fault)

    def _decodes(self, span: Span) -> bool:
        """Whether decode computes it: drafts where it takes many rows, else prefill does."""
        return span.decode or (span.verify and self.subject.rows)

    def _check_width(self, rows: Tensor) -> None:
        if self._width not in (None, rows.shape[1]):
            pair = self.subject.pair
            raise SubjectError(
                f"one of {pair.prefill_name} and {pair.decode_name} returns an LSE and the other "
                "does not; expected it from both or from neither"
            )
        self._width = rows.shape[1]

    def _check_memory(self, name: str) -> None:
        if not self._cache.intact():
            raise SubjectError(f"{name} wrote to slots of the cache that it was not given")

    def _prefill(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        given, twin = self._cache.packed([(s.sequence, self._keys(s)) for s in spans], self._spare)
        inputs = self._held(q, given, twin)
        return self._call_prefill(spans, inputs, coded=self._cache.kind.coded)

    def _whole(self, q: Tensor, spans: Sequence[Span], tokens: Sequence[FreshKeys]) -> Tensor:
        """Whole sequences without a cache: what a reader would get, used at once."""
        pairs = [self._cache.round_trip(0, each.k, each.v) for each in tokens]
        k, v = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        if self.subject.latent:
            v = k[..., : self.subject.heads.values]
        inputs = Inputs(q, StoredKV(k, v), self._empties)
        return self._call_prefill(spans, inputs, coded=False)

    def _call_prefill(self, spans: Sequence[Span], inputs: Inputs, *, coded: bool) -> Tensor:
        queries, keys = sizes(with_empties(spans) if self._empties else spans, self._keys)
        first = spans[0].sequence
        inputs = self._laid("attention.prefill", inputs, keys=True, first=first)
        rows = self.subject.call_prefill(
            inputs, self._offsets(queries), self._offsets(keys), coded=coded
        )
        self._check_memory(self.subject.pair.prefill_name)
        listener, row, key = events.current(), 0, 0
        if listener is not None:
            for span in spans:
                mine = slice(row, row + span.stop - span.start)
                own = emit_events.part(inputs.given, slice(key, key + self._keys(span)))
                emit_events.attended(
                    self.subject, listener, span, inputs.q[mine], rows[mine], own, coded
                )
                row, key = mine.stop, key + self._keys(span)
        return rows

    def _decode(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        coded, many = self._cache.kind.coded, self.subject.rows
        batch = decoded(
            [(span, self._keys(span)) for span in spans],
            empties=self._empties, first=FIRST, last=len(self.members), rows=many,
        )  # fmt: skip
        if self._empties:
            q = torch.cat([self._nobody, q, self._nobody, self._nobody])
        sequences, table = [each.sequence for each in batch], None
        if self._cache.page:
            (given, twin), table = self._cache.pages(), self._cache.block_table(sequences)
        else:
            given, twin = self._cache.rectangles(sequences, self._spare)
        plain = self._held(q, given, twin)
        inputs = self._laid("attention.decode", plain, keys=False, first=spans[0].sequence)
        rows = self.subject.call_decode(
            inputs,
            torch.tensor([each.keys for each in batch], dtype=torch.int32, device=q.device),
            coded=coded,
            block_table=table,
            cu_seqlens_q=self._offsets([each.rows for each in batch]) if many else None,
        )
        self._check_memory(self.subject.pair.decode_name)
        listener, row = events.current(), 0
        for i, each in enumerate(batch if listener is not None else ()):
            mine = slice(row, row + each.rows)
            row = mine.stop
            if each.span is not None and listener is not None:
                own = emit_events.row(inputs.given, i, table)
                own = emit_events.part(own, slice(0, each.keys))
                emit_events.attended(
                    self.subject, listener, each.span, inputs.q[mine], rows[mine], own, coded
                )
        return self._without_empties(rows) if self._empties else rows

    def _held(self, q: Tensor, given: StoredKV, twin: StoredKV) -> Inputs:
        """What a call is given of a cache, in its layout."""
        given, memory = laid_out(given, self.subject.layout)
        return Inputs(q, given, self._empties, memory, twin)

    def _laid(self, counted: str, plain: Inputs, *, keys: bool, first: int) -> Inputs:
        """What a call is given whose first sequence is ``first``: every other one fused views."""
        # Counted by the sequence that comes first: a part of the plan, as fresh processes compute
        # it, then gives each call what the whole plan gave it.
        number = self._led[counted, first] + first
        self._led[counted, first] += 1
        if number % 2 or not self.subject.strided:
            return plain
        # There they are views already: of more memory, or one of the other.
        keys = keys and not (self.layout.far or self.subject.latent)
        return strided(plain, spare=2 * self.subject.heads.kv, keys=keys)

    def _spare(self, slots: int, width: int) -> Stored:
        """Slots for a copy, of keys or of values: it is their codes and scales that are copied."""
        return self._stored(slots, 0, width)

    @property
    def _nobody(self) -> Tensor:
        """The query of a row that sees no key."""
        place = torch.zeros(1, dtype=torch.int64, device=self.subject.device)
        return self.subject.draw("(empty)", place)[0]

    def _without_empties(self, rows: Tensor) -> Tensor:
        fault = fault_of(
            self.subject.pair.decode_name,
            rows[[0, -1]],
            self.subject.heads.out,
            sinks=self.subject.terms().sinks,
        )
        self._found(fault)
        return rows[1:-LEAD]

    def _offsets(self, sizes: Sequence[int]) -> Tensor:
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + size)
        return torch.tensor(offsets, dtype=torch.int32, device=self.subject.device)

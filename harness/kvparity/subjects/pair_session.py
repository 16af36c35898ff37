"""A session of a pair of attention kernels: draws, stores, calls, and tells listeners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kvparity import taps
from kvparity.decoder.stored import Stored
from kvparity.schedule import Layout, Member, Span, Step
from kvparity.subject import SubjectError
from kvparity.subjects.pair_cache import Given, Kind, PairCache, packed, rectangle

if TYPE_CHECKING:
    from kvparity.subjects.attention import AttentionSubject


class AttentionSession:
    """Runs the pair over the steps; its unused slots are NaN."""

    def __init__(self, subject: AttentionSubject, members: Sequence[Member], layout: Layout):
        self.subject, self.members, self.layout = subject, tuple(members), layout
        self.capacity = max((m.length for m in members), default=0) + layout.slack
        slots = len(self.members) * self.capacity if layout.cached else 0
        self._cache = PairCache(
            members,
            self.capacity,
            Kind(self._stored(slots, 0), self._stored(slots, 1)),
            Kind(self._stored(slots, 0), self._stored(slots, 1)),
            window=subject.window,
            execution=subject.execution,
        )
        self._counts: Counter[str] = Counter()
        self._width: int | None = None

    def _stored(self, slots: int, which: int) -> Stored:
        subject = self.subject
        return Stored(
            slots,
            subject.heads.kv,
            subject.heads.dim,
            subject.store,
            heads_first=subject.layout == "head-slot",
            static=subject.static_scale("kv"[which]),
            device=subject.device,
        )

    def observed(self) -> Counter[str]:
        """Calls of the pair."""
        return Counter(self._counts)

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
        fresh = [self._draw(span, own) for span, own in zip(step, ids, strict=True)]
        listener = taps.current()
        for span, (_, k, v) in zip(step, fresh, strict=True):
            if self.layout.cached:
                self._cache.write(0, span.sequence, span.start, k, v)
            if listener is not None:
                listener.wrote(taps.Wrote(0, span.sequence, span.start, k, v))
        outputs: list[Tensor | None] = [None] * len(step)
        for decode in (False, True):
            chosen = [i for i, span in enumerate(step) if span.decode == decode]
            if not chosen:
                continue
            spans = [step[i] for i in chosen]
            q = torch.cat([fresh[i][0] for i in chosen])
            if not self.layout.cached:
                rows = self._whole(q, spans, [fresh[i] for i in chosen])
            else:
                rows = self._decode(q, spans) if decode else self._prefill(q, spans)
            self._check_width(rows)
            sizes = [span.stop - span.start for span in spans]
            for i, part in zip(chosen, torch.split(rows, sizes), strict=True):
                outputs[i] = part
        for span, out in zip(step, outputs, strict=True):
            if out is not None and len(span.rows):
                yield out[span.rows.start - span.start : span.rows.stop - span.start]

    def _check_width(self, rows: Tensor) -> None:
        if self._width not in (None, rows.shape[1]):
            pair = self.subject.pair
            raise SubjectError(
                f"one of {pair.prefill_name} and {pair.decode_name} returns an LSE and the other "
                "does not; expected it from both or from neither"
            )
        self._width = rows.shape[1]

    def _check_memory(self, name: str) -> None:
        if self.layout.cached and not self._cache.intact():
            raise SubjectError(f"{name} wrote to slots of the cache that it was not given")

    def _draw(self, span: Span, ids: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of a span. A donor's shared tokens are those of the sequence it is like.

        A token id other than 0 stands for other data under the same name.
        """
        member, parts = self.members[span.sequence], []
        names = [
            _data(member.like if p < member.shared else member.id, token)
            for p, token in zip(range(span.start, span.stop), ids, strict=True)
        ]
        start = 0
        while start < len(names):
            stop = start
            while stop < len(names) and names[stop] == names[start]:
                stop += 1
            first = span.start + span.position_shift
            positions = torch.arange(
                first + start, first + stop, dtype=torch.int64, device=self.subject.device
            )
            parts.append(self.subject.draw(names[start], positions))
            start = stop
        if len(parts) == 1:
            return parts[0]
        q, k, v = (torch.cat(each) for each in zip(*parts, strict=True))
        return q, k, v

    def _prefill(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        kind = self._cache.kind
        parts = [self._cache.place(s.sequence, 0, s.stop) for s in spans]
        given = kind.given(
            packed(kind.k, parts, partial(self._stored, which=0)),
            packed(kind.v, parts, partial(self._stored, which=1)),
        )
        return self._call_prefill(q, spans, given, coded=kind.coded)

    def _whole(
        self, q: Tensor, spans: Sequence[Span], fresh: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> Tensor:
        """Whole sequences without a cache: what a reader would get, used at once."""
        pairs = [self._cache.round_trip(0, k, v) for _, k, v in fresh]
        k, v = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        return self._call_prefill(q, spans, Given(k, v, {}), coded=False)

    def _call_prefill(
        self, q: Tensor, spans: Sequence[Span], given: Given, *, coded: bool
    ) -> Tensor:
        self._counts["attention.prefill"] += 1
        rows = self.subject.call(
            self.subject.pair.prefill,
            self.subject.pair.prefill_name,
            (q, given.k, given.v),
            scales=given.scales if coded else None,
            cu_seqlens_q=self._offsets([s.stop - s.start for s in spans]),
            cu_seqlens_k=self._offsets([s.stop for s in spans]),
        )
        self._check_memory(self.subject.pair.prefill_name)
        listener, row, key = taps.current(), 0, 0
        if listener is not None:
            for span in spans:
                count = span.stop - span.start
                self._tell(
                    listener, span, q[row : row + count], rows[row : row + count],
                    _part(given, slice(key, key + span.stop)), coded,
                )  # fmt: skip
                row, key = row + count, key + span.stop
        return rows

    def _decode(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        kind, sequences = self._cache.kind, [span.sequence for span in spans]
        given = kind.given(
            rectangle(kind.k, sequences, self.capacity, partial(self._stored, which=0)),
            rectangle(kind.v, sequences, self.capacity, partial(self._stored, which=1)),
        )
        lens = torch.tensor([s.stop for s in spans], dtype=torch.int32, device=q.device)
        self._counts["attention.decode"] += 1
        rows = self.subject.call(
            self.subject.pair.decode,
            self.subject.pair.decode_name,
            (q, given.k, given.v),
            scales=given.scales if kind.coded else None,
            kv_lens=lens,
        )
        self._check_memory(self.subject.pair.decode_name)
        listener = taps.current()
        if listener is not None:
            for i, span in enumerate(spans):
                one = _part(Given(given.k[i], given.v[i], _row(given, i)), slice(0, span.stop))
                self._tell(listener, span, q[i : i + 1], rows[i : i + 1], one, kind.coded)
        return rows

    def _tell(
        self,
        listener: taps.Listener,
        span: Span,
        q: Tensor,
        rows: Tensor,
        given: Given,
        coded: bool,
    ) -> None:
        """Tell of the rows that are wanted, from what the kernel was given."""
        wanted = listener.wants(span.sequence, range(span.start, span.stop))
        if not wanted:
            return
        subject, heads = self.subject, self.subject.heads
        k, v = self._readable(given, coded)
        width = heads.query * heads.dim
        for position in wanted:
            i = position - span.start
            first = max(0, position + 1 - subject.window) if subject.window else 0
            out = rows[i, :width].view(heads.query, heads.dim).to(subject.execution)
            listener.attended(
                taps.Attended(
                    layer=0,
                    sequence=span.sequence,
                    position=position,
                    told=None,
                    length=position + 1,
                    first=first,
                    q=q[i],
                    k=k[first : position + 1],
                    v=v[first : position + 1],
                    out=out,
                    lse=rows[i, width:] if rows.shape[1] > width else None,
                    scale=subject.scale,
                    softcap=subject.softcap,
                    decode=span.decode,
                )
            )

    def _readable(self, given: Given, coded: bool) -> tuple[Tensor, Tensor]:
        if not coded:
            return given.k, given.v
        return self.subject.decoded("k", given), self.subject.decoded("v", given)

    def _offsets(self, sizes: Sequence[int]) -> Tensor:
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + size)
        return torch.tensor(offsets, dtype=torch.int32, device=self.subject.device)


def _data(name: str, token: int) -> str:
    return name if token == 0 else f"{name}~{token}"


def _part(given: Given, keys: slice) -> Given:
    """Some keys of packed ones; scales that belong to no token stay whole."""
    scales = {
        name: scale if scale is None or scale.dim() == 1 else scale[keys]
        for name, scale in given.scales.items()
    }
    return Given(given.k[keys], given.v[keys], scales)


def _row(given: Given, row: int) -> dict[str, Tensor | None]:
    """The scales of one row of a rectangle."""
    return {
        name: scale if scale is None or scale.dim() == 1 else scale[row]
        for name, scale in given.scales.items()
    }

"""What an attention call knows of its batch, and orders that are picked by it.

A kernel that is dispatched by the batch, the longest query or a tuning table is the same sum in
another order; here the declared order is replaced by what such a table would pick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kvparity.controls.base import Plant, PlantedSession, PlantedSubject
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import Session, Subject
from kvparity.subjects.decoder.subject import AttentionOps, DecoderSubject
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.keys import DTYPES, KeysValues
from kvparity_kernels.order import ReductionOrder


@dataclass(frozen=True)
class Call:
    """One attention call: rows and keys of each sequence.

    ``group``: query heads per key head. ``window``: keys that a row sees, 0: all. ``coded``: the
    cache stores codes with scales, not floats.
    """

    decode: bool
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    group: int
    window: int = 0
    coded: bool = False


Choose = Callable[[Call, ReductionOrder], ReductionOrder]
"""(call, declared order) -> the order that is used instead."""


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below ``n``."""
    return 1 << max(n - 1, 0).bit_length()


def one_of(kv: KeysValues, b: int) -> KeysValues:
    """Sequence ``b`` of a batch alone."""
    one = slice(b, b + 1)
    starts = None if kv.starts is None else kv.starts[one]
    table = None if kv.block_table is None else kv.block_table[one]
    return replace(kv, kv_lens=kv.kv_lens[one], starts=starts, block_table=table)


def alone(more: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The options of a call for some of its rows."""
    first = more.get("first_key")
    return more if first is None else {**more, "first_key": first[rows]}


def choosing(choose: Choose, *, each: bool = False) -> Plant:
    """Plant: attention runs in the order that ``choose`` picks.

    ``each``: it is asked for every sequence by itself, as if each were a call of its own.
    """

    def plant(subject: Subject) -> Subject:
        if isinstance(subject, DecoderSubject):
            subject.require_order()
            return subject.with_attention(chosen(subject.attention, choose, each))
        if isinstance(subject, AttentionSubject) and subject.order is not None:
            return subject.with_pair(_chosen_pair(subject.pair, choose, each))
        raise UnsupportedError("the reduction order of this subject cannot be chosen")

    return plant


def chosen(ops: AttentionOps, choose: Choose, each: bool = False) -> AttentionOps:
    """The decoder's attention in the order that ``choose`` picks."""

    def prefill(
        q: Tensor, kv: KeysValues, *, q_starts: Tensor, q_lens: Tensor, max_q: int,
        order: ReductionOrder, **more: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        queries = tuple(q_lens.tolist())
        if not each or len(queries) == 1:
            call = _call(q, kv, queries, more, decode=False)
            return ops.prefill(
                q, kv, q_starts=q_starts, q_lens=q_lens, max_q=max_q, order=choose(call, order),
                **more,
            )  # fmt: skip
        out, lse, starts = torch.full_like(q, float("nan")), None, q_starts.tolist()
        for b, n in enumerate(queries):
            rows, own = slice(starts[b], starts[b] + n), one_of(kv, b)
            part, part_lse = ops.prefill(
                q[rows], own, q_starts=torch.zeros_like(q_starts[:1]), q_lens=q_lens[b : b + 1],
                max_q=n, order=choose(_call(q, own, (n,), more, decode=False), order),
                **alone(more, rows),
            )  # fmt: skip
            lse = part_lse.new_full((len(q), q.shape[1]), float("nan")) if lse is None else lse
            out[rows], lse[rows] = part, part_lse
        assert lse is not None  # a call has a sequence
        return out, lse

    def decode(
        q: Tensor, kv: KeysValues, *, order: ReductionOrder, **more: Any
    ) -> tuple[Tensor, Tensor]:
        batch = len(kv.kv_lens)
        if not each or batch == 1:
            call = _call(q, kv, (1,) * batch, more, decode=True)
            return ops.decode(q, kv, order=choose(call, order), **more)
        parts = []
        for b in range(batch):
            own, row = one_of(kv, b), slice(b, b + 1)
            picked = choose(_call(q, own, (1,), more, decode=True), order)
            parts.append(ops.decode(q[row], own, order=picked, **alone(more, row)))
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    return AttentionOps(prefill=prefill, decode=decode)


def coded(kv: KeysValues) -> bool:
    """Whether a cache stores codes with scales, not floats."""
    return kv.k.dtype not in DTYPES


def _call(
    q: Tensor, kv: KeysValues, queries: tuple[int, ...], more: dict[str, Any], *, decode: bool
) -> Call:
    return Call(
        decode, queries, tuple(kv.kv_lens.tolist()), q.shape[1] // kv.k.shape[1],
        more.get("window", 0), coded(kv),
    )  # fmt: skip


def _chosen_pair(pair: Pair, choose: Choose, each: bool) -> Pair:
    def prefill(
        q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
        order: ReductionOrder, **more: Any,
    ) -> Any:  # fmt: skip
        queries = tuple(cu_seqlens_q.diff().tolist())
        keys = tuple(cu_seqlens_k.diff().tolist())
        group = q.shape[1] // k.shape[1]
        if not each:
            call = Call(False, queries, keys, group, more.get("window", 0))
            return pair.prefill(
                q, k, v, cu_seqlens_q=cu_seqlens_q, cu_seqlens_k=cu_seqlens_k,
                order=choose(call, order), **more,
            )  # fmt: skip
        rows, held = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        parts = []
        for b, n in enumerate(queries):
            kv = slice(held[b], held[b + 1])
            call = Call(False, (n,), (keys[b],), group, more.get("window", 0))
            parts.append(
                pair.prefill(
                    q[rows[b] : rows[b + 1]], k[kv], v[kv],
                    cu_seqlens_q=cu_seqlens_q.new_tensor([0, n]),
                    cu_seqlens_k=cu_seqlens_k.new_tensor([0, keys[b]]),
                    order=choose(call, order), **more,
                )
            )  # fmt: skip
        return _joined(parts)

    def decode(
        q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, order: ReductionOrder, **more: Any
    ) -> Any:
        keys = tuple(kv_lens.tolist())
        group = q.shape[1] // k.shape[2]

        def call(lengths: tuple[int, ...]) -> Call:
            return Call(True, (1,) * len(lengths), lengths, group, more.get("window", 0))

        if not each:
            return pair.decode(q, k, v, kv_lens=kv_lens, order=choose(call(keys), order), **more)
        return _joined(
            [
                pair.decode(
                    q[b : b + 1], k[b : b + 1], v[b : b + 1], kv_lens=kv_lens[b : b + 1],
                    order=choose(call(keys[b : b + 1]), order), **more,
                )
                for b in range(len(keys))
            ]
        )  # fmt: skip

    return replace(pair, prefill=prefill, decode=decode)


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], tuple):
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    return torch.cat(list(parts))


class Running:
    """What a session is doing: the step that it computes (empty before the first)."""

    def __init__(self) -> None:
        self.step: Step = ()

    @property
    def longest(self) -> int:
        """The most rows that one sequence has in this step."""
        return max((span.stop - span.start for span in self.step), default=0)


class _Watched(PlantedSession):
    def __init__(self, inner: Session, running: Running) -> None:
        super().__init__(inner)
        self.running = running

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        self.running.step = step
        return self.inner.forward(step, ids)


def in_sessions(change: Callable[[DecoderSubject, Running], DecoderSubject]) -> Plant:
    """Plant a defect that follows the step: ``change`` is asked once for every session."""

    def plant(subject: Subject) -> Subject:
        if not isinstance(subject, DecoderSubject):
            raise UnsupportedError("this defect needs a decoder of this project")
        decoder = subject

        def open_session(_: Subject, members: Sequence[Member], layout: Layout) -> Session:
            running = Running()
            return _Watched(change(decoder, running).session(members, layout), running)

        return PlantedSubject(subject, open_session)

    return plant

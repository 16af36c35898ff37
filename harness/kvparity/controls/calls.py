"""What an attention call knows of its batch, and orders that are picked by it.

A kernel that is dispatched by the batch, the longest query or a tuning table is the same sum in
another order; here the declared order is replaced by what such a table would pick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import torch

from kvparity.controls.base import Plant, PlantedSubject, Watched
from kvparity.controls.reference import decoder_of
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.attention_calls import (
    AttentionOps,
    DecodeCall,
    Outputs,
    PairCall,
    PairDecodeCall,
    PairPrefillCall,
    PrefillCall,
    SlotsCall,
    with_keys,
)
from kvparity.subjects.base import Session, Subject
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_kernels.keys import DTYPES, KeysValues
from kvparity_kernels.order import ReductionOrder


@dataclass(frozen=True)
class CallFacts:
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


Choose = Callable[[CallFacts, ReductionOrder], ReductionOrder]
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

    def asked(call: SlotsCall) -> SlotsCall:
        order = choose(_facts(call), call.order)
        return replace(call, order=order)

    def prefill(call: PrefillCall) -> Outputs:
        lens, starts = call.q_lens.tolist(), call.q_starts.tolist()
        if not each or len(lens) == 1:
            return ops.prefill(asked(call))
        out, lse = torch.full_like(call.q, float("nan")), None
        for b, n in enumerate(lens):
            rows = slice(starts[b], starts[b] + n)
            own = replace(
                _rows_of(call, rows), kv=one_of(call.kv, b), max_q=n,
                q_starts=torch.zeros_like(call.q_starts[:1]), q_lens=call.q_lens[b : b + 1],
            )  # fmt: skip
            part, part_lse = ops.prefill(asked(own))
            if lse is None:
                lse = part_lse.new_full(call.q.shape[:2], float("nan"))
            out[rows], lse[rows] = part, part_lse
        assert lse is not None  # a call has a sequence
        return out, lse

    def decode(call: DecodeCall) -> Outputs:
        if not each or call.kv.batch == 1:
            return ops.decode(asked(call))
        parts = []
        for b in range(call.kv.batch):
            own = replace(_rows_of(call, slice(b, b + 1)), kv=one_of(call.kv, b))
            parts.append(ops.decode(asked(own)))
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    return AttentionOps(prefill=prefill, decode=decode)


def _rows_of(call: SlotsCall, rows: slice) -> SlotsCall:
    """The call with some of its rows alone."""
    first = call.first_key
    return replace(call, q=call.q[rows], first_key=None if first is None else first[rows])


def coded(kv: KeysValues) -> bool:
    """Whether a cache stores codes with scales, not floats."""
    return kv.k.dtype not in DTYPES


def _facts(call: PrefillCall | DecodeCall) -> CallFacts:
    kv, decode = call.kv, isinstance(call, DecodeCall)
    queries = (1,) * kv.batch if isinstance(call, DecodeCall) else tuple(call.q_lens.tolist())
    group = call.q.shape[1] // kv.k.shape[1]
    return CallFacts(decode, queries, tuple(kv.kv_lens.tolist()), group, call.window, coded(kv))


def _chosen_pair(pair: Pair, choose: Choose, each: bool) -> Pair:
    def asked(call: PairCall) -> PairCall:
        assert call.order is not None  # ``choosing`` asks for a pair that takes one
        order = choose(_pair_facts(call), call.order)
        return replace(call, order=order)

    def prefill(call: PairPrefillCall) -> object:
        if not each:
            return pair.prefill(asked(call))
        ends_q, ends_k = call.cu_seqlens_q.tolist(), call.cu_seqlens_k.tolist()
        parts = []
        for b in range(len(ends_q) - 1):
            rows, keys = slice(*ends_q[b : b + 2]), slice(*ends_k[b : b + 2])
            own = replace(
                with_keys(call, itemgetter(keys)), q=call.q[rows],
                cu_seqlens_q=call.cu_seqlens_q.new_tensor([0, rows.stop - rows.start]),
                cu_seqlens_k=call.cu_seqlens_k.new_tensor([0, keys.stop - keys.start]),
            )  # fmt: skip
            parts.append(pair.prefill(asked(own)))
        return _joined(parts)

    def decode(call: PairDecodeCall) -> object:
        if not each:
            return pair.decode(asked(call))
        parts = []
        for b in range(len(call.kv_lens)):
            if call.queries[b]:
                parts.append(pair.decode(asked(call.sequence(b))))
        return _joined(parts)

    return replace(pair, prefill=prefill, decode=decode)


def _pair_facts(call: PairPrefillCall | PairDecodeCall) -> CallFacts:
    if isinstance(call, PairDecodeCall):
        keys = tuple(call.kv_lens.tolist())
        group = call.q.shape[1] // call.k.shape[2]
        return CallFacts(True, call.queries, keys, group, call.window)
    queries, keys = (tuple(x.diff().tolist()) for x in (call.cu_seqlens_q, call.cu_seqlens_k))
    return CallFacts(False, queries, keys, call.q.shape[1] // call.k.shape[1], call.window)


def _joined(parts: Sequence[object]) -> object:
    whole = [part if isinstance(part, tuple) else (part,) for part in parts]
    joined = tuple(torch.cat(each) for each in zip(*whole, strict=True))
    return joined if len(joined) > 1 else joined[0]


class Running:
    """What a session is doing: the step that it computes (empty before the first)."""

    def __init__(self) -> None:
        self.step: Step = ()

    def begin(self, step: Step) -> None:
        """The step begins."""
        self.step = step

    @property
    def longest(self) -> int:
        """The most rows that one sequence has in this step."""
        return max((span.stop - span.start for span in self.step), default=0)


def in_sessions(change: Callable[[DecoderSubject, Running], DecoderSubject]) -> Plant:
    """Plant a defect that follows the step: ``change`` is asked once for every session."""

    def plant(subject: Subject) -> Subject:
        decoder = decoder_of(subject)

        def open_session(_: Subject, members: Sequence[Member], layout: Layout) -> Session:
            running = Running()
            return Watched(change(decoder, running).session(members, layout), running.begin)

        return PlantedSubject(subject, open_session)

    return plant

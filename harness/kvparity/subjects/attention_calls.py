"""The seam of attention: one call of a kernel as a frozen value, whose type is its phase.

The decoder's attention is called over slots of a cache that it knows (``PrefillCall``,
``DecodeCall``). A pair of kernels that a contract names is called as engines call theirs
(``PairPrefillCall``, ``PairDecodeCall``); its functions take keywords, and :func:`by_keywords` is
the one place that turns such a call into them. An argument that kernels are to have one day is a
field here, and one keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TypeVar

import torch
from torch import Tensor

from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat

Outputs = tuple[Tensor, Tensor]
"""``out`` as the queries, ``lse`` float32 ``[rows, Hq]``; ``[rows, 0]`` where there is no LSE."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _ScoreRules:
    """``scale``: of query-key products, before anything else. ``window``: a row sees only the last
    so many of its keys (0: all). ``softcap`` c: a score s becomes ``c * tanh(s / c)`` (0: none).
    ``sinks`` float32 ``[Hq]``: logits of one more key per head whose value is 0 (None: none).
    """

    scale: float
    window: int = 0
    softcap: float = 0.0
    sinks: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _SlotsCall(_ScoreRules):
    """``q`` ``[rows, Hq, D]``, ``kv``: a cache and the place of each sequence in it (tables, pages,
    lengths, codes and scales). ``order``: libraries that have an order of their own do not look at
    it. ``first_key`` int32 by row of q: a row sees no key before it (None: no such limit).
    """

    q: Tensor
    kv: KeysValues
    order: ReductionOrder
    first_key: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefillCall(_SlotsCall):
    """Causal attention of many rows per sequence, aligned at the end of its keys.

    ``q_starts``, ``q_lens`` int32 ``[B]``: the rows of sequence b are ``q_starts[b]`` and the next,
    ``q_lens[b]`` of them and at most ``max_q``. Other rows of q belong to no sequence.
    """

    q_starts: Tensor
    q_lens: Tensor
    max_q: int


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodeCall(_SlotsCall):
    """Attention of one row per sequence, which sees all its keys: q is ``[B, Hq, D]``.

    ``max_kv`` bounds ``kv.kv_lens``, a number of the host.
    """

    max_kv: int


SlotsCall = TypeVar("SlotsCall", PrefillCall, DecodeCall)


@dataclass(frozen=True)
class AttentionOps:
    """The two attention functions of a decoder.

    A planted defect replaces one by a function that changes the call, or what comes back.
    """

    prefill: Callable[[PrefillCall], Outputs]
    decode: Callable[[DecodeCall], Outputs]


@dataclass(frozen=True)
class StoredKV:
    """What a pair is given of a cache: k and v and, where they are codes, their scales."""

    k: Tensor
    v: Tensor
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All of it that there is, by the names that a call has."""
        return {name: each for name, each in vars(self).items() if each is not None}

    def each(self, change: Callable[[Tensor], Tensor]) -> StoredKV:
        """The same with k, v and the scales that lie beside their tokens changed."""

        def beside(scale: Tensor | None) -> Tensor | None:
            return scale if scale is None or scale.dim() == 1 else change(scale)

        return StoredKV(change(self.k), change(self.v), beside(self.k_scale), beside(self.v_scale))


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTerms:
    """What the scores of each query head take beside q and k, float32; None: not declared.

    ``sinks`` ``[Hq]``: logits of one more key whose value is 0. The others are added to scores
    after scale and softcap, by the distance of a key from the row's own. ``alibi_slopes`` ``[Hq]``:
    ``- slope * distance``. ``bias`` ``[Hq, distances]``: its last column is of all farther keys.
    """

    sinks: Tensor | None = None
    alibi_slopes: Tensor | None = None
    bias: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by keyword."""
        return {name: each for name, each in vars(self).items() if each is not None}


@dataclass(frozen=True, kw_only=True, eq=False)
class _PairCall(_ScoreRules):
    """``q`` ``[rows, Hq, D]``, ``k`` and ``v``: numbers, or codes of ``format`` with ``k_scale``
    and ``v_scale`` float32, ``[Hkv]`` or one for each group of each key. ``order``: None where the
    contract declares none. ``alibi_slopes`` and ``bias`` as in ``HeadTerms``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    alibi_slopes: Tensor | None = None
    bias: Tensor | None = None
    k_scale: Tensor | None = None
    v_scale: Tensor | None = None
    format: StoreFormat | None = None
    order: ReductionOrder | None = None

    def lengths(self) -> dict[str, Tensor]:
        """How rows and keys are shared among sequences, by keyword."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are given to the kernel and that it may not change, by name."""
        return {"q": self.q} | self.stored.tensors() | self.lengths() | self.terms.tensors()

    @property
    def terms(self) -> HeadTerms:
        """What scores take beside q and k."""
        return HeadTerms(sinks=self.sinks, alibi_slopes=self.alibi_slopes, bias=self.bias)

    @property
    def stored(self) -> StoredKV:
        """Keys and values with their scales."""
        return StoredKV(self.k, self.v, self.k_scale, self.v_scale)

    def keywords(self) -> dict[str, object]:
        """What is passed beside q, k and v: what a contract need not ask for only if it did."""
        found: dict[str, object] = {**self.lengths(), "scale": self.scale}
        if self.format is not None:
            found |= {"k_scale": self.k_scale, "v_scale": self.v_scale, "format": self.format}
        if self.order is not None:
            found["order"] = self.order
        if self.window:
            found["window"] = self.window
        if self.softcap:
            found["softcap"] = self.softcap
        return found | self.terms.tensors()


@dataclass(frozen=True, kw_only=True, eq=False)
class PairPrefillCall(_PairCall):
    """Packed sequences: k, v ``[sum Tk, Hkv, D]``, causal and aligned at the end of the keys.

    ``cu_seqlens_q``, ``cu_seqlens_k`` int32 ``[B+1]``: sequence b has the rows from
    ``cu_seqlens_q[b]`` to before ``cu_seqlens_q[b+1]``; the same of keys.
    """

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor

    def lengths(self) -> dict[str, Tensor]:
        """The offsets."""
        return {"cu_seqlens_q": self.cu_seqlens_q, "cu_seqlens_k": self.cu_seqlens_k}


@dataclass(frozen=True, kw_only=True, eq=False)
class PairDecodeCall(_PairCall):
    """One row per sequence over caches: q ``[B, Hq, D]``, k, v ``[B, capacity, Hkv, D]``.

    ``kv_lens`` int32 ``[B]``: a row sees so many keys of its cache; what lies behind is not read.
    ``block_table`` int32 ``[B, max_pages]``: k, v are then ``[pages, page, Hkv, D]``, scales beside
    tokens likewise, and key i of sequence b is slot ``i % page`` of page ``block_table[b, i //
    page]``. What is behind its last page names pages that hold nothing.
    """

    kv_lens: Tensor
    block_table: Tensor | None = None

    def lengths(self) -> dict[str, Tensor]:
        """The numbers of keys, and their pages where there are any."""
        table = {} if self.block_table is None else {"block_table": self.block_table}
        return {"kv_lens": self.kv_lens} | table

    def sequences(self, some: slice) -> PairDecodeCall:
        """The call of some of its sequences alone."""
        found = replace(self, q=self.q[some], kv_lens=self.kv_lens[some])
        if self.block_table is None:
            return with_keys(found, itemgetter(some))
        return replace(found, block_table=self.block_table[some])

    def gathered(self) -> PairDecodeCall:
        """The same over caches ``[B, capacity, Hkv, D]``: copies of the pages, if there are any."""
        if self.block_table is None:
            return self
        table = self.block_table.long()
        return replace(with_keys(self, lambda x: x[table].flatten(1, 2)), block_table=None)

    def in_pages(self, page: int) -> PairDecodeCall:
        """The same over pages: copies of the caches, one sequence's pages behind another's."""
        batch, capacity = self.k.shape[:2]
        count = -(-capacity // page)

        def cut(x: Tensor) -> Tensor:
            whole = x.new_zeros(batch, count * page, *x.shape[2:])
            whole[:, :capacity] = x
            return whole.view(batch * count, page, *x.shape[2:])

        own = torch.arange(batch * count, dtype=torch.int32, device=self.kv_lens.device)
        return replace(with_keys(self, cut), block_table=own.view(batch, count))


PairCall = TypeVar("PairCall", PairPrefillCall, PairDecodeCall)


def with_keys(call: PairCall, change: Callable[[Tensor], Tensor]) -> PairCall:
    """The call with k, v and the scales that lie beside their tokens changed."""
    return replace(call, **vars(call.stored.each(change)))


PairPrefill = Callable[[PairPrefillCall], object]
"""A pair's prefill: it should return out, or (out, lse), which is checked where it is called."""
PairDecode = Callable[[PairDecodeCall], object]
"""A pair's decode; what it returns is checked where it is called."""


def over_caches(change: Callable[[PairDecode], PairDecode], decode: PairDecode) -> PairDecode:
    """What ``change`` makes of a decode, whatever the caches of its calls: it sees no pages."""

    def called(call: PairDecodeCall) -> object:
        if call.block_table is None:
            return change(decode)(call)
        page = call.k.shape[1]
        return change(lambda each: decode(each.in_pages(page)))(call.gathered())

    return called


def by_keywords(
    kernel: Callable[..., object],
) -> Callable[[PairPrefillCall | PairDecodeCall], object]:
    """A function of a contract, ``kernel(q, k, v, **keywords)``, as one that takes calls."""

    def called(call: PairPrefillCall | PairDecodeCall) -> object:
        return kernel(call.q, call.k, call.v, **call.keywords())

    return called

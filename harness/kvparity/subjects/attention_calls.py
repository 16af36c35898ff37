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

from kvparity.subjects.kernel_inputs import HeadTerms as HeadTerms
from kvparity.subjects.kernel_inputs import StoredKV as StoredKV
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


@dataclass(frozen=True, kw_only=True, eq=False)
class _PairCall(_ScoreRules):
    """``q`` ``[rows, Hq, D]``, ``k`` and ``v``: numbers, or codes of ``format`` with ``k_scale``
    and ``v_scale`` float32, ``[Hkv]`` or one for each group of each key. ``order``: None where the
    contract declares none. ``alibi_slopes`` and ``bias`` as in ``HeadTerms``.
    ``causal`` false: a row sees keys behind its own, too, in a window as many as before it;
    ``window_size``: so many before and behind at most (-1: all; None: no such limit).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    alibi_slopes: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = True
    window_size: tuple[int, int] | None = None
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
        if not self.causal:
            found["causal"] = False
        if self.window_size is not None:
            found["window_size"] = self.window_size
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
    ``cu_seqlens_q`` int32 ``[B+1]``: q is then packed, ``[rows, Hq, D]``, sequence b has the rows
    from ``cu_seqlens_q[b]`` to before ``cu_seqlens_q[b+1]``, and each but the last of them sees one
    key less than the row behind it.
    ``block_table`` int32 ``[B, max_pages]``: k, v are then ``[pages, page, Hkv, D]``, scales beside
    tokens likewise, and key i of sequence b is slot ``i % page`` of page ``block_table[b, i //
    page]``. What is behind its last page names pages that hold nothing.
    """

    kv_lens: Tensor
    block_table: Tensor | None = None
    cu_seqlens_q: Tensor | None = None

    def lengths(self) -> dict[str, Tensor]:
        """The numbers of keys, and where there are any, their pages and the rows' offsets."""
        found = {"kv_lens": self.kv_lens}
        if self.block_table is not None:
            found["block_table"] = self.block_table
        if self.cu_seqlens_q is not None:
            found["cu_seqlens_q"] = self.cu_seqlens_q
        return found

    @property
    def queries(self) -> tuple[int, ...]:
        """How many rows each sequence has."""
        ends = self.cu_seqlens_q
        return (1,) * len(self.kv_lens) if ends is None else tuple(ends.diff().tolist())

    def rows_behind(self) -> Tensor:
        """int64 ``[rows]``: how many rows of its sequence come behind a row."""
        counts = self.queries
        found = [n - 1 - i for n in counts for i in range(n)]
        return torch.tensor(found, dtype=torch.int64, device=self.q.device)

    def sequence(self, b: int) -> PairDecodeCall:
        """The call of one sequence alone."""
        one, first = slice(b, b + 1), sum(self.queries[:b])
        count = self.queries[b]
        found = replace(self, q=self.q[first : first + count], kv_lens=self.kv_lens[one])
        if self.cu_seqlens_q is not None:
            found = replace(found, cu_seqlens_q=self.cu_seqlens_q.new_tensor([0, count]))
        if self.block_table is None:
            return with_keys(found, itemgetter(one))
        return replace(found, block_table=self.block_table[one])

    def plain(self) -> PairDecodeCall:
        """The same for sequences of one row over caches, copied where it is called otherwise."""
        found = self
        if found.cu_seqlens_q is not None:
            counts = found.cu_seqlens_q.diff()
            owner = torch.arange(len(counts), device=self.q.device).repeat_interleave(counts)
            lens = (found.kv_lens[owner] - self.rows_behind()).to(found.kv_lens.dtype)
            found = replace(found, cu_seqlens_q=None, kv_lens=lens)
            if found.block_table is None:
                found = with_keys(found, lambda x: x[owner])
            else:
                found = replace(found, block_table=found.block_table[owner])
        if found.block_table is None:
            return found
        table = found.block_table.long()
        return replace(with_keys(found, lambda x: x[table].flatten(1, 2)), block_table=None)

    def like(self, other: PairDecodeCall) -> PairDecodeCall:
        """A plain call in the form of another one: over pages, with offsets of its rows."""
        found = self if other.block_table is None else self.in_pages(other.k.shape[1])
        return found if other.cu_seqlens_q is None else found.with_offsets()

    def with_offsets(self) -> PairDecodeCall:
        """A call of one row per sequence that says so."""
        ends = torch.arange(len(self.q) + 1, dtype=torch.int32, device=self.q.device)
        return replace(self, cu_seqlens_q=ends)

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


def plainly(change: Callable[[PairDecode], PairDecode], decode: PairDecode) -> PairDecode:
    """What ``change`` makes of a decode, whatever its calls are: it sees plain ones."""
    return lambda call: change(lambda each: decode(each.like(call)))(call.plain())


def ask(kernel: Callable[..., object], *given: object, **keywords: object) -> object:
    """Call a function of the user's: where it takes no such call, the error is raised right here.

    So a message can say what it is called with.
    """
    return kernel(*given, **keywords)


def by_keywords(kernel: Callable[..., object]) -> Callable[..., object]:
    """A function of a contract, ``kernel(q, k, v, **keywords)``, as one that takes calls.

    It may also be given the ``out`` that the function is to write to.
    """

    def called(call: PairPrefillCall | PairDecodeCall, out: Tensor | None = None) -> object:
        given = {} if out is None else {"out": out}
        return ask(kernel, call.q, call.k, call.v, **given, **call.keywords())

    return called

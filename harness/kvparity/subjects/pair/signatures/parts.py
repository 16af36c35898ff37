"""A call in parts: one for each sequence that has rows and keys, for functions of no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from kvparity.subjects.attention_calls import PairDecodeCall, PairPrefillCall


@dataclass(frozen=True)
class SequenceCall:
    """``rows`` of q from ``start``, and their keys and values ``[keys, Hkv, D]``."""

    start: int
    rows: int
    k: Tensor
    v: Tensor

    @property
    def keys(self) -> int:
        """How many."""
        return len(self.k)


@dataclass(frozen=True, eq=False)
class BySequence:
    """``q`` and ``out`` ``[rows, Hq, D]``: rows of no span are 0, as they see no key."""

    q: Tensor
    out: Tensor
    spans: Sequence[SequenceCall]

    @classmethod
    def of_prefill(cls, call: PairPrefillCall) -> BySequence:
        """Those of packed sequences."""
        edges = zip(call.cu_seqlens_q.tolist(), call.cu_seqlens_k.tolist(), strict=True)
        return cls._of(call, [
            SequenceCall(a, b - a, call.k[c:d], call.v[c:d]) for (a, c), (b, d) in pairwise(edges)
        ])  # fmt: skip

    @classmethod
    def of_decode(cls, call: PairDecodeCall) -> BySequence:
        """Those of caches."""
        lens = call.kv_lens.tolist()
        return cls._of(
            call, [SequenceCall(b, 1, call.k[b, :n], call.v[b, :n]) for b, n in enumerate(lens)]
        )

    @classmethod
    def _of(
        cls, call: PairPrefillCall | PairDecodeCall, spans: Sequence[SequenceCall]
    ) -> BySequence:
        out = call.q.new_zeros(*call.q.shape[:2], call.v.shape[-1])
        return cls(call.q, out, [each for each in spans if each.rows and each.keys])

    def rows(self, span: SequenceCall) -> Tensor:
        """Its queries ``[rows, Hq, D]``."""
        return self.q[span.start : span.start + span.rows]

    def at(self, span: SequenceCall) -> Tensor:
        """Where its results go."""
        return self.out[span.start : span.start + span.rows]


def put(at: Tensor, found: object) -> None:
    """Keep what a function returned.

    Raises ``ValueError`` if it is of another shape or dtype; a copy would be without a word.
    """
    if not isinstance(found, Tensor):
        raise ValueError(f"it returned a {type(found).__name__}, expected a tensor")
    if (found.shape, found.dtype) != (at.shape, at.dtype):
        returned, expected = (f"{x.dtype} {list(x.shape)}" for x in (found, at))
        raise ValueError(f"it returned {returned}, expected {expected}")
    at.copy_(found)

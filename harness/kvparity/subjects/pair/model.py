"""The numbers of a pair of kernels: shapes, formats, data, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kvparity.core.rng import normal, stream, uniform
from kvparity.subjects.attention_calls import (
    HeadTerms,
    PairDecode,
    PairDecodeCall,
    PairPrefill,
    PairPrefillCall,
    StoredKV,
    by_keywords,
)
from kvparity.subjects.pair.append import Appending
from kvparity.subjects.pair.call import checked
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.data import MIXED, Drawing, DrawnShape, Mixture
from kvparity.subjects.pair.inputs import Inputs
from kvparity.subjects.pair.terms import draw as draw_terms
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, decode


@dataclass(frozen=True)
class Pair:
    """The two functions under verification and the names that the contract gave them.

    ``append``: what writes the cache, None where kvparity does.
    """

    prefill: PairPrefill
    decode: PairDecode
    prefill_name: str
    decode_name: str
    append: Appending | None = None

    @classmethod
    def of(cls, prefill: Kernel, decode: Kernel, prefill_name: str, decode_name: str) -> Pair:
        """Functions that take keywords, as a contract names them."""
        return cls(by_keywords(prefill), by_keywords(decode), prefill_name, decode_name)


@dataclass(frozen=True)
class HeadCounts:
    """Head counts and the width of a head; ``v_dim``: of a value (0: the same)."""

    query: int
    kv: int
    dim: int
    v_dim: int = 0

    @property
    def values(self) -> int:
        """Width of one value, and of one head of the result."""
        return self.v_dim or self.dim

    @property
    def out(self) -> int:
        """Numbers in one row of the result."""
        return self.query * self.values


@dataclass(frozen=True)
class PairModel:
    """A kernel pair with its head shape, formats, device and seed.

    ``format``: what the cache stores (None: numbers in the dtype ``kv_cache``). ``window``: how
    many keys a row sees (0: all). ``softcap``: 0 for none. ``sinks``: the pair takes logits of
    sinks, drawn from ``sink_range``; ``alibi``: slopes; ``distances``: a bias for each of so many
    (0: none). ``latent``: values are the first columns of keys. ``causal``
    false: a row sees keys behind its own, and ``window_size``: how many before and behind it at
    most (None: all). ``cross``: a sequence has the keys of an encoder, so many at least and at most
    (None: those of its tokens). ``layout``: whether slots or heads come first in memory.
    ``mixture``: of the data, None for standard normals, whose queries are of very different lengths
    with ``sharp``. ``strided``: it takes views of fused tensors; ``empties``: and sequences without
    a token. ``page``: slots of a page of the cache that decode is given, 0 where it has none.
    ``rows``: decode takes many rows of a sequence.
    ``given_out``: both are given the tensor that they write to; ``signature``: whose calls they
    are called with (None: kvparity's); both are told, and no more.
    """

    pair: Pair
    heads: HeadCounts
    scale: float
    execution: torch.dtype
    kv_cache: torch.dtype
    device: torch.device
    seed: int
    order: ReductionOrder | None = None
    vocab: int = 0
    max_positions: int = 2**31 - 1
    format: StoreFormat | None = None
    window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    sink_range: tuple[float, float] = (0.0, 0.0)
    alibi: bool = False
    distances: int = 0
    latent: bool = False
    causal: bool = True
    window_size: tuple[int, int] | None = None
    cross: tuple[int, int] | None = None
    layout: str = "slot-head"
    mixture: Mixture | None = MIXED
    sharp: bool = False
    strided: bool = True
    empties: bool = True
    page: int = 0
    rows: bool = False
    given_out: bool = False
    signature: str | None = None

    @property
    def store(self) -> StoreFormat:
        """What the cache stores."""
        return self.format or StoreFormat.parse(str(self.kv_cache).removeprefix("torch."))

    @property
    def shape(self) -> DrawnShape:
        """What every draw has in common."""
        return DrawnShape(self.seed, self.heads.query, self.heads.kv, self.heads.dim, self.device)

    def keys(self, name: str, tokens: int) -> int:
        """How many keys a sequence has once so many of its tokens are computed."""
        if self.cross is None:
            return tokens
        fewest, most = self.cross
        key = stream(self.seed, name, "encoder")
        drawn = uniform(key, torch.zeros(1, dtype=torch.int64))
        return fewest + int(float(drawn) * (most - fewest + 1))

    def draw(
        self, name: str, positions: Tensor, *, queries: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q ``[n, query heads, dim]``, k and v ``[n, kv heads, width]``, execution dtype.

        Without ``queries`` q has no rows.
        """
        q = self.drawn("q", name, positions if queries else positions[:0])
        k, v = (self.drawn(each, name, positions) for each in "kv")
        return q, k, v

    def drawn(self, purpose: str, name: str, positions: Tensor) -> Tensor:
        """``q``, ``k`` or ``v`` alone."""
        if self.latent and purpose != "v":
            return self._latent(purpose, name, positions)
        return self._draw(purpose, name, positions, self._width(purpose)).to(self.execution)

    def _latent(self, purpose: str, name: str, positions: Tensor) -> Tensor:
        """Keys that begin with their values, and queries for them.

        What is special of keys is in the columns behind, where RoPE is: values stay as small as
        others are.
        """
        width = self.heads.values
        parts = [self._draw("v", name, positions, width)]
        if purpose == "q":
            key = stream(self.seed, name, "latent q")
            flat = normal(key, positions, self.heads.query * width)
            parts = [flat.view(-1, self.heads.query, width)]
        if behind := self.heads.dim - width:
            parts.append(self._draw(purpose, name, positions, behind))
        return torch.cat(parts, 2).to(self.execution)

    def _draw(self, purpose: str, name: str, positions: Tensor, width: int) -> Tensor:
        drawing = Drawing(replace(self.shape, dim=width), self.mixture, self.sharp)
        return drawing.draw(purpose, name, positions)

    def _width(self, purpose: str) -> int:
        return self.heads.values if purpose == "v" else self.heads.dim

    def terms(self) -> HeadTerms:
        """What scores take beside q and k, the same in every call."""
        sinks = self.sink_range if self.sinks else None
        return draw_terms(self.shape, sinks=sinks, alibi=self.alibi, distances=self.distances)

    def static_scale(self, part: str) -> Tensor | None:
        """float32 ``[kv heads]`` of fp8 keys (``k``) or values, another for each; None elsewhere.

        Between 1/96 and 1/48, and 512 times as much for keys that may be extreme: every draw is
        below the largest code, and a scale of the wrong head shows.
        """
        if not self.store.static:
            return None
        heads = torch.arange(self.heads.kv if self.store.per_head else 1, dtype=torch.int64)
        drawn = (1 + uniform(stream(self.seed, "cache", f"{part}-scale"), heads)) / 96
        if part == "k" and self.mixture is not None and self.mixture.extreme:
            drawn *= 512
        return drawn.float().expand(self.heads.kv).contiguous().to(self.device)

    def decoded(self, part: str, given: StoredKV) -> Tensor:
        """Codes ``[n, kv heads, width]`` of keys (``k``) or values, as a reader gets them."""
        codes = given.k if part == "k" else given.v
        scale = given.k_scale if part == "k" else given.v_scale
        return decode(codes, scale, self.store, self.execution)

    def call_prefill(
        self,
        inputs: Inputs,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        *,
        coded: bool,
        terms: HeadTerms | None = None,
    ) -> Tensor:
        """Call prefill; what came back, checked and copied, as float32 ``[n, Hq * Dv (+ Hq)]``.

        ``coded``: codes and their scales are passed on with their format. ``terms``: in place of
        drawn ones. Raises as ``call.checked``.
        """
        call = PairPrefillCall(
            q=inputs.q, **vars(inputs.given),
            format=self.store if coded else None, cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k, scale=self.scale, order=self.order, window=self.window,
            softcap=self.softcap, causal=self.causal,
            window_size=self.window_size, **vars(terms or self.terms()),
        )  # fmt: skip
        name, width = self.pair.prefill_name, self.heads.values
        return checked(name, self.pair.prefill, call, inputs, width)

    def call_decode(
        self,
        inputs: Inputs,
        kv_lens: Tensor,
        *,
        coded: bool,
        terms: HeadTerms | None = None,
        block_table: Tensor | None = None,
        cu_seqlens_q: Tensor | None = None,
    ) -> Tensor:
        """Call decode; otherwise as ``call_prefill``.

        Without a ``block_table`` k and v are caches ``[B, capacity, Hkv, D]``, which are put into
        pages where the pair takes nothing else; without ``cu_seqlens_q`` a sequence has one row.
        """
        call = PairDecodeCall(
            q=inputs.q, **vars(inputs.given),
            format=self.store if coded else None, kv_lens=kv_lens, block_table=block_table,
            scale=self.scale, order=self.order, window=self.window, softcap=self.softcap,
            causal=self.causal, **vars(terms or self.terms()),
        )  # fmt: skip
        call = replace(call, cu_seqlens_q=cu_seqlens_q)
        if self.page and block_table is None:
            call = call.in_pages(self.page)
        if self.rows and cu_seqlens_q is None:
            call = call.with_offsets()
        name, width = self.pair.decode_name, self.heads.values
        return checked(name, self.pair.decode, call, inputs, width)

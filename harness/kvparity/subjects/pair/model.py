"""The numbers of a pair of kernels: shapes, formats, data, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvparity.core.rng import stream, uniform
from kvparity.subjects.pair.cache import Given
from kvparity.subjects.pair.call import checked
from kvparity.subjects.pair.callables import Kernel
from kvparity.subjects.pair.data import MIXED, Drawing, Mixture, Shape
from kvparity.subjects.pair.inputs import Inputs
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, decode


@dataclass(frozen=True)
class Pair:
    """The two callables under verification and the names that the contract gave them."""

    prefill: Kernel
    decode: Kernel
    prefill_name: str
    decode_name: str


@dataclass(frozen=True)
class Heads:
    """Head counts and the head dimension."""

    query: int
    kv: int
    dim: int


@dataclass(frozen=True)
class PairModel:
    """A kernel pair with its head shape, formats, device and seed.

    ``format``: what the cache stores (None: numbers in the dtype ``kv_cache``). ``window``: how
    many keys a row sees (0: all). ``softcap``: 0 for none. ``sinks``: the pair takes logits of
    sinks, which only who calls it directly can give. ``layout``: whether slots or heads come first
    in memory. ``mixture``: of the data, None for standard normals, whose queries are of very
    different lengths with ``sharp``. ``strided``: it takes views of fused tensors; ``empties``: and
    sequences without a token.
    """

    pair: Pair
    heads: Heads
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
    layout: str = "slot-head"
    mixture: Mixture | None = MIXED
    sharp: bool = False
    strided: bool = True
    empties: bool = True

    @property
    def store(self) -> StoreFormat:
        """What the cache stores."""
        return self.format or StoreFormat.parse(str(self.kv_cache).removeprefix("torch."))

    def draw(self, name: str, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q ``[n, query heads, dim]``, k and v ``[n, kv heads, dim]`` in the execution dtype."""
        q = self.drawn("q", name, positions)
        k, v = (self.drawn(each, name, positions) for each in "kv")
        return q, k, v

    def drawn(self, purpose: str, name: str, positions: Tensor) -> Tensor:
        """``q``, ``k`` or ``v`` alone."""
        shape = Shape(self.seed, self.heads.query, self.heads.kv, self.heads.dim, self.device)
        drawing = Drawing(shape, self.mixture, self.sharp)
        return drawing.draw(purpose, name, positions).to(self.execution)

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

    def decoded(self, part: str, given: Given) -> Tensor:
        """Codes ``[n, kv heads, width]`` of keys (``k``) or values, as a reader gets them."""
        codes = given.k if part == "k" else given.v
        return decode(codes, given.scales[f"{part}_scale"], self.store, self.execution)

    def call(
        self, kernel: Kernel, name: str, inputs: Inputs, *, coded: bool, **lengths: Tensor
    ) -> Tensor:
        """Call one kernel; what came back, checked and copied, as float32 ``[n, Hq * D (+ Hq)]``.

        ``coded``: codes and their scales are passed on with their format. Raises as
        ``pair_call.checked``.
        """
        q, given = inputs.q, inputs.given
        codes = {**given.scales, "format": self.store} if coded else {}
        more = {**lengths, "scale": self.scale, **codes, **self._more()}
        return checked(name, inputs, lengths, more, lambda: kernel(q, given.k, given.v, **more))

    def _more(self) -> dict[str, Any]:
        """Keywords beyond the plain signature, each only where the contract asks for it."""
        more: dict[str, Any] = {} if self.order is None else {"order": self.order}
        if self.window:
            more["window"] = self.window
        if self.softcap:
            more["softcap"] = self.softcap
        return more

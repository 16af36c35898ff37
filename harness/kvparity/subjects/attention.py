"""Subject *attention*: a pair of kernels, prefill and decode, on random q, k and v.

The "token" is one query row. q, k and v are drawn per (seed, sequence, position), every path
computes the rows in its own way, and the bits of O (and of LSE where it is returned) are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvparity.counter import stream, uniform
from kvparity.schedule import Layout, Member, Plan
from kvparity.subjects.callables import Kernel, load_callable
from kvparity.subjects.pair_cache import Given
from kvparity.subjects.pair_call import checked
from kvparity.subjects.pair_data import MIXED, Drawing, Mixture, Shape
from kvparity.subjects.pair_exact import exact
from kvparity.subjects.pair_inputs import Inputs
from kvparity.subjects.pair_session import AttentionSession
from kvparity_contracts.subjects import Attention
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, decode, round_trip


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
class AttentionSubject:
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

    def with_pair(self, pair: Pair) -> AttentionSubject:
        """The same subject over other kernels."""
        return replace(self, pair=pair)

    def unsupported(self, plan: Plan) -> str | None:
        """Padded and paged layouts are not part of the pair's signature."""
        if plan.generate:
            return "an attention subject generates no tokens"
        if plan.layout.page:
            return "a paged cache is not part of the attention pair's signature"
        if plan.layout.batch != "packed":
            return "a padded batch is not part of the attention pair's signature"
        if plan.layout.program != "eager":
            return "a pair of kernels is called as it is, not through a traced program"
        if plan.layout.far and self.device.type != "cpu":
            return f"memory of which few pages are touched is the CPU's, not {self.device.type}'s"
        if not plan.layout.cached and any(s.start for step in plan.schedule for s in step):
            return "without a cache, every sequence must be computed whole"
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> AttentionSession:
        """Open a session."""
        return AttentionSession(self, members, layout)

    def draw(self, name: str, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q ``[n, query heads, dim]``, k and v ``[n, kv heads, dim]`` in the execution dtype."""
        q = self._drawn("q", name, positions)
        k, v = (self._drawn(each, name, positions) for each in "kv")
        return q, k, v

    def _drawn(self, purpose: str, name: str, positions: Tensor) -> Tensor:
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

    def column(self, number: int) -> str:
        """The head and element of O, or whose LSE: a row is O by head, then the LSE of all."""
        head, dim = divmod(number, self.heads.dim)
        if head < self.heads.query:
            return f"head {head}, dim {dim}"
        return f"lse of head {number - self.heads.query * self.heads.dim}"

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The rows themselves."""
        return rows

    def oracle(self, member: Member, ids: Sequence[int], rows: range) -> Tensor:
        """Float64 O and LSE of the same rows, from the stored data: rounded as it is declared."""
        return exact(self, *self.stored(member, rows))

    def stored(self, member: Member, rows: range) -> tuple[Tensor, Tensor, Tensor]:
        """q of the rows and k, v of all keys up to the last, as a reader of the cache gets them."""
        positions = torch.arange(rows.stop, dtype=torch.int64, device=self.device)
        q = self._drawn("q", member.id, positions[rows.start :])
        k, v = (
            round_trip(
                self._drawn(part, member.id, positions),
                self.store,
                self.static_scale(part),
                self.execution if self.format is not None else self.kv_cache,
            )
            for part in "kv"
        )
        return q, k, v

    def describe(self, ran: Counter[str] | None = None) -> Mapping[str, Any]:
        """The pair's names and shapes."""
        return {
            "kind": "attention",
            "prefill": self.pair.prefill_name,
            "decode": self.pair.decode_name,
            "heads": {"query": self.heads.query, "kv": self.heads.kv, "dim": self.heads.dim},
            "scale": self.scale,
            "order": None if self.order is None else asdict(self.order),
            "kv_cache": str(self.store),
            "layout": self.layout,
            "window": self.window or None,
            "softcap": self.softcap or None,
            "queries": "mixed" if self.mixture else "sharp" if self.sharp else "normal",
            "inputs": "strided" if self.strided else "contiguous",
            "empty": "zero" if self.empties else "never",
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What the pair is spared, for the first lines of a report."""
        notes = []
        if not self.strided:
            notes.append("inputs: contiguous, so q, k and v were never views of a fused tensor")
        if not self.empties:
            notes.append("empty: never, so no sequence without a token was given to the pair")
        return notes


def build(
    model: Attention,
    *,
    execution: str,
    kv_cache: str,
    device: torch.device,
    seed: int,
    base: Path,
) -> AttentionSubject:
    """The subject that a contract describes.

    Raises ``ValueError`` if a name does not import, or the format cannot hold the heads.
    """
    pair = Pair(
        prefill=load_callable(model.prefill, base),
        decode=load_callable(model.decode, base),
        prefill_name=model.prefill,
        decode_name=model.decode,
    )
    heads = Heads(model.heads.query, model.heads.kv, model.heads.dim)
    store = StoreFormat.parse(kv_cache)
    store.groups(heads.dim)
    return AttentionSubject(
        pair=pair,
        heads=heads,
        scale=heads.dim**-0.5 if model.scale is None else model.scale,
        execution=getattr(torch, execution),
        kv_cache=store.storage_dtype,
        device=device,
        seed=seed,
        format=store if store.static or store.dynamic else None,
        window=model.window or 0,
        softcap=model.softcap or 0.0,
        layout=model.layout,
        mixture=MIXED if model.queries == "mixed" else None,
        sharp=model.queries == "sharp",
        strided=model.inputs == "strided",
        empties=model.empty == "zero",
        order=None if model.order is None else ReductionOrder(**model.order.model_dump()),
    )

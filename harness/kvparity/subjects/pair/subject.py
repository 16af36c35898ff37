"""Subject *attention*: a pair of kernels, prefill and decode, on random q, k and v.

The "token" is one query row. q, k and v are drawn per (seed, sequence, position), every path
computes the rows in its own way, and the bits of O (and of LSE where it is returned) are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kvparity.plan.schedule import Layout, Member, Plan
from kvparity.plan.thinned import runs
from kvparity.subjects.pair.append import Appending
from kvparity.subjects.pair.callables import load_callable
from kvparity.subjects.pair.data import MIXED
from kvparity.subjects.pair.exact import exact
from kvparity.subjects.pair.model import HeadCounts, Pair, PairModel
from kvparity.subjects.pair.out_buffers import into_buffers
from kvparity.subjects.pair.session import AttentionSession
from kvparity.subjects.pair.signatures.table import adapted
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.pair_faults import LAID_OUT
from kvparity_contracts.pair_keys import AlibiBias, RelativeBias
from kvparity_contracts.subjects import Attention
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat, round_trip


@dataclass(frozen=True)
class AttentionSubject(PairModel):
    """A pair of kernels as a subject: what kvparity asks of it."""

    def with_pair(self, pair: Pair) -> AttentionSubject:
        """The same subject over other kernels."""
        return replace(self, pair=pair)

    def unsupported(self, plan: Plan) -> str | None:
        """A padded layout is not part of the pair's signature, and pages are where it says so."""
        if plan.generate:
            return "an attention subject generates no tokens"
        if plan.layout.page and not self.page:
            return "the pair is not declared to take pages"
        if plan.layout.batch != "packed":
            return "a padded batch is not part of the attention pair's signature"
        if plan.layout.program != "eager":
            return "a pair of kernels is called as it is, not through a traced program"
        if plan.layout.far and self.device.type != "cpu":
            return f"memory of which few pages are touched is the CPU's, not {self.device.type}'s"
        if plan.layout.far and self.layout in LAID_OUT:
            return f"a cache is laid out anew for each call (layout: {self.layout}), not far apart"
        if self.cross is not None:
            if any(member.shared for member in plan.members):
                return "every sequence has an encoder (cross) of its own, so none takes over keys"
            if any(s.verify for step in plan.schedule for s in step):
                return "all rows see the same keys of an encoder (cross), so none of a draft"
        elif not self.causal and any(
            s.start or s.stop != plan.members[s.sequence].length or s.decode
            for step in plan.schedule
            for s in step
        ):
            return "a row that sees keys behind its own needs its whole sequence in one step"
        if not plan.layout.cached and any(s.start for step in plan.schedule for s in step):
            return "without a cache, every sequence must be computed whole"
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> AttentionSession:
        """Open a session."""
        return AttentionSession(self, members, layout)

    def column(self, number: int) -> str:
        """The head and element of O, or whose LSE: a row is O by head, then the LSE of all."""
        head, dim = divmod(number, self.heads.values)
        if head < self.heads.query:
            return f"head {head}, dim {dim}"
        return f"lse of head {number - self.heads.out}"

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The rows themselves."""
        return rows

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        """Float64 O and LSE of the same rows, from the stored data: rounded as it is declared."""
        if isinstance(rows, range):
            return exact(self, *self.stored(member, rows))[: len(rows)]
        # Keys and values of a long sequence are drawn once for all of its rows.
        _, k, v = self.stored(member, range(rows[-1], rows[-1] + 1))
        parts = []
        for start, stop in runs(rows):
            places = torch.arange(start, stop, dtype=torch.int64, device=self.device)
            q = self.drawn("q", member.id, places)
            parts.append(exact(self, q, k[:stop], v[:stop]))
        return torch.cat(parts)

    def stored(self, member: Member, rows: range) -> tuple[Tensor, Tensor, Tensor]:
        """q of the rows and k, v of all keys up to the last, as a reader of the cache gets them.

        Where rows see later keys, both go on to the end of the sequence; keys may be an encoder's.
        """
        stop = rows.stop if self.causal else member.length
        positions = torch.arange(stop, dtype=torch.int64, device=self.device)
        q = self.drawn("q", member.id, positions[rows.start :])
        positions = torch.arange(self.keys(member.id, stop), device=self.device)
        k, v = (
            round_trip(
                self.drawn(part, member.id, positions),
                self.store,
                self.static_scale(part),
                self.execution if self.format is not None else self.kv_cache,
            )
            for part in "kv"
        )
        return q, k, v

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """The pair's names and shapes."""
        return {
            "kind": "attention",
            "prefill": self.pair.prefill_name,
            "decode": self.pair.decode_name,
            "signature": self.signature,
            "append": None if self.pair.append is None else self.pair.append.name,
            "heads": asdict(self.heads) | {"v_dim": self.heads.values},
            "values": "latent" if self.latent else "own",
            "scale": self.scale,
            "order": None if self.order is None else asdict(self.order),
            "kv_cache": str(self.store),
            "layout": self.layout,
            "out": "given" if self.given_out else "returned",
            "page": self.page or None,
            "rows": "many" if self.rows else "one",
            "window": self.window or None,
            "causal": self.causal,
            "cross": list(self.cross) if self.cross else None,
            "window_size": list(self.window_size) if self.window_size else None,
            "softcap": self.softcap or None,
            "sinks": list(self.sink_range) if self.sinks else None,
            "bias": self._bias(),
            "queries": "mixed" if self.mixture else "sharp" if self.sharp else "normal",
            "inputs": "strided" if self.strided else "contiguous",
            "empty": "zero" if self.empties else "never",
            "notes": self._notes(),
        }

    def _bias(self) -> JsonObject | None:
        if self.alibi:
            return {"kind": "alibi"}
        return {"kind": "relative", "distances": self.distances} if self.distances else None

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
    prefill, decode = (load_callable(name, base) for name in (model.prefill, model.decode))
    called = adapted(model.signature, prefill, decode, model.page or 0)
    pair = Pair(called.prefill, called.decode, model.prefill, model.decode)
    if model.gives_out:
        width, apart = model.heads.v_dim or model.heads.dim, model.inputs == "strided"
        pair = replace(
            pair,
            prefill=into_buffers(called.prefill, model.prefill, width=width, apart=apart),
            decode=into_buffers(called.decode, model.decode, width=width, apart=apart),
        )
    if model.append is not None:
        writer = Appending.of(load_callable(model.append, base), model.append)
        pair = replace(pair, append=writer)
    declared = model.heads
    heads = HeadCounts(declared.query, declared.kv, declared.dim, declared.v_dim or 0)
    store = StoreFormat.parse(kv_cache)
    store.groups(heads.dim)
    store.groups(heads.values)
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
        sinks=model.sinks is not None,
        sink_range=model.sinks or (0.0, 0.0),
        causal=model.causal,
        window_size=model.window_size,
        cross=model.cross,
        latent=model.values == "latent",
        alibi=isinstance(model.bias, AlibiBias),
        distances=model.bias.distances if isinstance(model.bias, RelativeBias) else 0,
        layout=model.layout,
        mixture=MIXED if model.queries == "mixed" else None,
        sharp=model.queries == "sharp",
        strided=model.inputs == "strided",
        empties=model.empty == "zero",
        page=model.page or 0,
        given_out=model.gives_out,
        signature=model.signature,
        rows=model.rows == "many",
        order=None if model.order is None else ReductionOrder(**model.order.model_dump()),
    )

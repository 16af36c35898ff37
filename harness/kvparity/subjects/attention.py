"""Subject *attention*: a pair of kernels, prefill and decode, on random q, k and v.

The "token" is one query row. q, k and v are drawn per (seed, sequence, position), every path
computes the rows in its own way, and the bits of O (and of LSE where it is returned) are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kvparity.bits import bits
from kvparity.counter import normal, stream
from kvparity.schedule import Layout, Member, Plan, Span, Step
from kvparity.subject import SubjectError, UnsupportedError
from kvparity.subjects.callables import Kernel, load_callable
from kvparity_contracts.subjects import Attention
from kvparity_kernels.attention import naive
from kvparity_kernels.order import ReductionOrder


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


class _Cache:
    """The session's cache ``[members, capacity, kv_heads, dim]``, one layer."""

    def __init__(self, k: Tensor, v: Tensor) -> None:
        self.k, self.v = k, v

    def layers(self) -> int:
        return 1

    def read(self, layer: int, sequence: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.k[sequence, start:stop].clone(), self.v[sequence, start:stop].clone()

    def write(self, layer: int, sequence: int, start: int, k: Tensor, v: Tensor) -> None:
        self.k[sequence, start : start + len(k)] = k
        self.v[sequence, start : start + len(v)] = v


class AttentionSession:
    """Runs the pair over the steps; the cache is the harness's, its unused slots are NaN."""

    def __init__(self, subject: AttentionSubject, members: Sequence[Member], layout: Layout):
        self.subject, self.members = subject, members
        capacity = max(m.length for m in members) + layout.slack
        shape = (len(members), capacity, subject.heads.kv, subject.heads.dim)
        k = torch.full(shape, float("nan"), dtype=subject.kv_cache, device=subject.device)
        self._cache = _Cache(k, k.clone())
        self._counts: Counter[str] = Counter()
        self._width: int | None = None

    def observed(self) -> Counter[str]:
        """Calls of the pair."""
        return Counter(self._counts)

    def cache(self) -> _Cache:
        """The cache."""
        return self._cache

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Draw q, k, v of the step, store k and v, and call the kernel of each kind of span."""
        queries = [self._store(span) for span in step]
        outputs: list[Tensor | None] = [None] * len(step)
        for decode in (False, True):
            chosen = [i for i, span in enumerate(step) if span.decode == decode]
            if not chosen:
                continue
            spans = [step[i] for i in chosen]
            q = torch.cat([queries[i] for i in chosen])
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

    def _store(self, span: Span) -> Tensor:
        subject = self.subject
        first = span.start + span.position_shift
        positions = torch.arange(
            first, first + span.stop - span.start, dtype=torch.int64, device=subject.device
        )
        name = self.members[span.sequence].id
        q, k, v = subject.draw(name, positions)
        self._cache.write(
            0, span.sequence, span.start, k.to(subject.kv_cache), v.to(subject.kv_cache)
        )
        return q

    def _prefill(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        k = torch.cat([self._cache.k[s.sequence, : s.stop] for s in spans])
        v = torch.cat([self._cache.v[s.sequence, : s.stop] for s in spans])
        self._counts["attention.prefill"] += 1
        return self.subject.call(
            self.subject.pair.prefill,
            self.subject.pair.prefill_name,
            (q, k, v),
            cu_seqlens_q=self._offsets([s.stop - s.start for s in spans]),
            cu_seqlens_k=self._offsets([s.stop for s in spans]),
        )

    def _decode(self, q: Tensor, spans: Sequence[Span]) -> Tensor:
        pick = torch.tensor([s.sequence for s in spans], device=q.device)
        lens = torch.tensor([s.stop for s in spans], dtype=torch.int32, device=q.device)
        self._counts["attention.decode"] += 1
        return self.subject.call(
            self.subject.pair.decode,
            self.subject.pair.decode_name,
            (q, self._cache.k[pick], self._cache.v[pick]),
            kv_lens=lens,
        )

    def _offsets(self, sizes: Sequence[int]) -> Tensor:
        offsets = [0]
        for size in sizes:
            offsets.append(offsets[-1] + size)
        return torch.tensor(offsets, dtype=torch.int32, device=self.subject.device)


@dataclass(frozen=True)
class AttentionSubject:
    """A kernel pair with its head shape, dtypes, device and seed."""

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
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> AttentionSession:
        """Open a session."""
        return AttentionSession(self, members, layout)

    def draw(self, name: str, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q ``[n, query heads, dim]``, k and v ``[n, kv heads, dim]`` in the execution dtype."""

        def one(purpose: str, heads: int) -> Tensor:
            key = stream(self.seed, name, purpose)
            flat = normal(key, positions, heads * self.heads.dim)
            return flat.to(self.execution).view(-1, heads, self.heads.dim)

        return one("q", self.heads.query), one("k", self.heads.kv), one("v", self.heads.kv)

    def call(
        self, kernel: Kernel, name: str, tensors: Sequence[Tensor], **lengths: Tensor
    ) -> Tensor:
        """Call one kernel and check what came back; float32 rows ``[n, Hq * D (+ Hq)]``.

        Raises:
            SubjectError: it raised, returned another shape, dtype or device, or wrote to an input.
        """
        before = [bits(t).clone() for t in tensors]
        try:
            result = kernel(*tensors, **lengths, scale=self.scale, **self._more())
        except UnsupportedError:  # of a planted defect, not of the kernel
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise SubjectError(f"{name}: out of device memory: {error}") from error
        except (Exception, SystemExit) as error:
            raise SubjectError(f"{name} raised {type(error).__name__}: {error}") from error
        for tensor, old, label in zip(tensors, before, ("q", "k", "v"), strict=True):
            if not torch.equal(bits(tensor), old):
                raise SubjectError(f"{name} wrote to its input {label}")
        out, lse = result if isinstance(result, tuple) else (result, None)
        q = tensors[0]
        _expect(name, "out", out, q.shape, q.dtype, q.device)
        rows: Tensor = out.float().reshape(len(q), -1)
        if lse is None:
            return rows
        _expect(name, "lse", lse, q.shape[:2], torch.float32, q.device)
        return torch.cat([rows, lse], dim=1)

    def _more(self) -> dict[str, Any]:
        return {} if self.order is None else {"order": self.order}

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The rows themselves."""
        return rows

    def oracle(self, member: Member, ids: Sequence[int], rows: range) -> Tensor:
        """Float64 O and LSE of the same rows, from the stored (execution and cache dtype) data."""
        positions = torch.arange(member.length, dtype=torch.int64, device=self.device)
        q, k, v = self.draw(member.id, positions)
        k, v = k.to(self.kv_cache), v.to(self.kv_cache)
        out, lse = naive.attend(
            q[rows.start : rows.stop].double(),
            k[: rows.stop].double(),
            v[: rows.stop].double(),
            scale=self.scale,
        )
        return torch.cat([out.reshape(len(rows), -1), lse.reshape(len(rows), -1)], dim=1)

    def describe(self) -> Mapping[str, Any]:
        """The pair's names and shapes."""
        return {
            "kind": "attention",
            "prefill": self.pair.prefill_name,
            "decode": self.pair.decode_name,
            "heads": {"query": self.heads.query, "kv": self.heads.kv, "dim": self.heads.dim},
            "scale": self.scale,
            "order": None if self.order is None else asdict(self.order),
        }


def _expect(
    name: str, what: str, got: Any, shape: Sequence[int], dtype: torch.dtype, device: torch.device
) -> None:
    if not isinstance(got, Tensor):
        raise SubjectError(f"{name}: {what} is a {type(got).__name__}, expected a tensor")
    if tuple(got.shape) != tuple(shape):
        raise SubjectError(f"{name}: {what} has shape {list(got.shape)}, expected {list(shape)}")
    if got.dtype != dtype:
        raise SubjectError(f"{name}: {what} has dtype {got.dtype}, expected {dtype}")
    if got.device != device:
        raise SubjectError(f"{name}: {what} is on {got.device}, expected {device}")


def build(
    model: Attention,
    *,
    execution: str,
    kv_cache: str,
    device: torch.device,
    seed: int,
    base: Path,
) -> AttentionSubject:
    """The subject that a contract describes. Raises ``ValueError`` if a name does not import."""
    pair = Pair(
        prefill=load_callable(model.prefill, base),
        decode=load_callable(model.decode, base),
        prefill_name=model.prefill,
        decode_name=model.decode,
    )
    heads = Heads(model.heads.query, model.heads.kv, model.heads.dim)
    return AttentionSubject(
        pair=pair,
        heads=heads,
        scale=heads.dim**-0.5 if model.scale is None else model.scale,
        execution=getattr(torch, execution),
        kv_cache=getattr(torch, kv_cache),
        device=device,
        seed=seed,
        order=None if model.order is None else ReductionOrder(**model.order.model_dump()),
    )

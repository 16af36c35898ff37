"""One side of a pair, decode or prefill, seen as a function of the last row alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvparity.relations.order.encoding import split_log2
from kvparity.relations.order.errors import NotATree, NotMeasured
from kvparity.relations.order.storing import draw, exactly
from kvparity.subjects.attention_calls import HeadTerms, StoredKV
from kvparity.subjects.pair.inputs import Inputs
from kvparity.subjects.pair.subject import AttentionSubject

Which = Literal["decode", "prefill"]
COLD = -400.0  # log2 of a weight that is zero beside any other
CAPPED_COLD = -60.0  # the same where a softcap bounds scores: swallowed by any sum with a 1 in it
PROBED_CAP = 64.0  # a softcap behind which weights down to 2^-60 are seen
_LEVELS = 3  # weights other than 1 in one probe, at most


@dataclass(frozen=True)
class Answer:
    """``out`` ``[B, Hq, D]`` as float32 (exact) and ``lse`` ``[B, Hq]`` where it is returned."""

    out: Tensor
    lse: Tensor | None


@dataclass(frozen=True)
class Steps:
    """log2 of b over a and of c over b, and what a shows.

    ``once``: nothing closes between b and c; ``twice``: b's block is closed.
    """

    a_to_b: float
    b_to_c: float
    once: float
    twice: float


@dataclass(frozen=True)
class KnownSteps:
    """What probes found out of a side, by softcap: ``steps`` of scores, sums that are resolved."""

    steps: dict[float, Steps] = field(default_factory=dict)
    resolved: set[float] = field(default_factory=set)


class Side:
    """Calls one callable of a pair at one shape, which never changes, and counts the calls.

    Kernels choose their order from the shape, so every probe has the shape under test: ``batch``
    sequences of ``total`` keys, of which the last row sees the ``keys`` from ``first`` on; probes
    speak of these alone. Keys before the window weigh as much as the heaviest and hold ones, so a
    kernel that lets them in is seen. Prefill is called with ``rows`` query rows for each sequence,
    all the same, and its last row is the answer; decode with a cache of just these keys.

    ``notes`` says where a probe had to leave the subject's own numbers; ``known`` is what probes
    found out of the side itself, so that it is found out once.
    """

    def __init__(
        self, subject: AttentionSubject, which: Which, *, keys: int, batch: int, rows: int
    ) -> None:
        self.subject, self.which = subject, which
        self.total, self.batch, self.rows = keys, batch, rows
        self.first = max(keys - subject.window, 0) if subject.window else 0
        self.keys = keys - self.first
        self.heads = subject.heads
        self.group = self.heads.query // self.heads.kv
        self.out, self.stored, self.device = subject.execution, subject.kv_cache, subject.device
        self.format = subject.store
        self.coded = self.format.static or self.format.dynamic
        self.parts = 1 if self.out == torch.float32 else 3
        self.weights = split_log2(subject.scale, self.out, self.parts)
        # Keys of codes, and scores behind a cap, take dimensions of their own for each weight.
        self.plain = not (self.coded or subject.softcap)
        self.wide = self.parts * (1 if self.plain else _LEVELS)
        self.calls = 0
        self.notes: dict[str, None] = {}
        self.known = KnownSteps()

    @property
    def name(self) -> str:
        """The name that the user gave the callable."""
        pair = self.subject.pair
        return pair.decode_name if self.which == "decode" else pair.prefill_name

    @property
    def patterns(self) -> int:
        """Weights of their own that query heads of a group can have in one probe.

        Raises:
            NotMeasured: keys have too few dimensions for those of one.
        """
        if self.heads.dim < self.wide:
            raise NotMeasured(
                f"{self.heads.dim} dimensions of a head leave no room for the weights of a probe, "
                f"which need {self.wide}"
            )
        return min(self.group, self.heads.dim // self.wide)

    @property
    def cold(self) -> float:
        """log2 of a weight that no sum with a 1 in it shows."""
        return CAPPED_COLD if self.subject.softcap else COLD

    def changed(self, *, scale: float | None = None, softcap: float | None = None) -> Side:
        """The same side of a subject with another scale or softcap; it counts its own calls."""
        subject = self.subject
        other = Side(
            replace(
                subject,
                scale=subject.scale if scale is None else scale,
                softcap=subject.softcap if softcap is None else softcap,
            ),
            self.which,
            keys=self.total,
            batch=self.batch,
            rows=self.rows,
        )
        other.notes, other.known = self.notes, self.known
        return other

    def reaching(self, log2: float) -> Side:
        """This side if weights of ``2**log2`` beside 1 can be had of it, else one with more room.

        Behind a softcap c no score is below -c, so no weight below e^-c.
        """
        cap = self.subject.softcap
        if not cap or -log2 * math.log(2) <= 0.9 * cap:
            return self
        self.notes[
            f"behind a softcap of {cap:g} no weight is below 2^-{cap / math.log(2):.3g}: probes "
            f"with smaller ones ran with a softcap of {PROBED_CAP:g}"
        ] = None
        return self.changed(softcap=PROBED_CAP)

    def run(self, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None = None) -> Answer:
        """The last row for q ``[B, Hq, D]`` and k, v ``[B, keys, Hkv, D]`` (any float, exact).

        ``sinks``: ``[Hkv, patterns]``, log2 of the weight that the sinks of a pair with sinks have
        (None: too little to be seen).

        Raises:
            NotMeasured: the cache's format does not hold k or v exactly.
        """
        hidden = torch.zeros(self.batch, self.first, self.heads.kv, self.heads.dim)
        k, v = torch.cat([hidden, k], 1), torch.cat([hidden + 1.0, v], 1)
        if self.coded:
            (k, k_scale), (v, v_scale) = (exactly(x, self.format, self.out) for x in (k, v))
            given = StoredKV(k, v, k_scale, v_scale)
        else:
            given = StoredKV(k.to(self.stored), v.to(self.stored))
        logits = torch.full((self.heads.kv, self.group), COLD)
        if sinks is not None:
            logits[:, : sinks.shape[1]] = sinks
        own = self.subject.terms()
        if own.alibi_slopes is not None or own.bias is not None:
            self.notes["a bias of scores is 0 in probes"] = None
        zero = {name: torch.zeros_like(each) for name, each in own.tensors().items()}
        if own.sinks is not None:
            zero["sinks"] = (logits.flatten() * math.log(2)).to(own.sinks)
        return self._call(q, given, HeadTerms(**zero))

    def random(self, rng: torch.Generator) -> Answer:
        """The last row for random normal q, k, v and sinks, stored as a writer would store them."""
        heads = self.heads
        q = torch.randn(self.batch, heads.query, heads.dim, generator=rng)
        k = torch.randn(self.batch, self.total, heads.kv, heads.dim, generator=rng)
        v = torch.randn(self.batch, self.total, heads.kv, heads.dim, generator=rng)
        own = self.subject.terms().tensors()
        terms = {name: torch.randn(x.shape, generator=rng).to(x) for name, x in own.items()}
        if self.coded:
            (k, k_scale), (v, v_scale) = draw(k, self.subject, "k"), draw(v, self.subject, "v")
            given = StoredKV(k, v, k_scale, v_scale)
        else:
            given = StoredKV(k.to(self.stored), v.to(self.stored))
        return self._call(q, given, HeadTerms(**terms))

    def _call(self, q: Tensor, given: StoredKV, terms: HeadTerms) -> Answer:
        """One call. Scales that lie beside tokens are ``[B, total, Hkv, groups]``."""
        subject, batch, device = self.subject, self.batch, self.device
        q = q.to(device, self.out)
        scales = (x if x is None else x.to(device) for x in (given.k_scale, given.v_scale))
        given = StoredKV(given.k.to(device), given.v.to(device), *scales)
        self.calls += 1
        if self.which == "decode":
            lens = torch.full((batch,), self.total, dtype=torch.int32, device=device)
            rows = subject.call_decode(Inputs(q, given), lens, coded=self.coded, terms=terms)
        else:
            count = torch.arange(batch + 1, dtype=torch.int32, device=device)
            q, given = q.repeat_interleave(self.rows, 0), given.each(lambda x: x.flatten(0, 1))
            rows = subject.call_prefill(
                Inputs(q, given), count * self.rows, count * self.total, coded=self.coded,
                terms=terms,
            )  # fmt: skip
        if self.which == "prefill":
            rows = rows[self.rows - 1 :: self.rows]
        width = self.heads.query * self.heads.dim
        out = rows[:, :width].view(batch, self.heads.query, self.heads.dim).cpu()
        return Answer(out, rows[:, width:].cpu() if rows.shape[1] > width else None)

    def values(self) -> Tensor:
        """Zeros for V, to be filled: ``[B, keys, Hkv, D]``."""
        return torch.zeros(self.batch, self.keys, self.heads.kv, self.heads.dim)

    def weighted(self, log2: Tensor) -> tuple[Tensor, Tensor]:
        """q and k that give key j the weight ``2**log2[b, g, r, j]``, to float32 precision.

        ``log2`` is ``[B, Hkv, patterns, keys]``: pattern r of key head g is seen by that group's
        query head r alone; with one pattern all heads see it. Keys of equal numbers get scores of
        equal bits, and 0 is exactly 0. Each pattern has key dimensions of its own, so there are
        ``patterns`` of them at most.

        Where keys are codes or scores are capped, the query holds the score (before the cap) of
        each weight, in dimensions of its own, and keys hold nothing but ones and zeros.
        """
        levels = [1.0] if self.plain else sorted({*log2.flatten().tolist()} - {0.0})
        count, parts = log2.shape[2], len(levels) * self.parts
        if count * parts > self.heads.dim:
            raise ValueError(f"{count} patterns of {len(levels)} weights do not fit")
        q = torch.zeros(self.batch, self.heads.kv, self.group, self.heads.dim)
        k = self.values()
        for r in range(count):
            heads = slice(None) if count == 1 else r
            for i, level in enumerate(levels):
                own = slice(r * parts + i * self.parts, r * parts + (i + 1) * self.parts)
                q[:, :, heads, own] = torch.tensor(self._query(level))
                mine = log2[:, :, r] if self.plain else (log2[:, :, r] == level).float()
                k[..., own] = mine.transpose(1, 2)[..., None]
        return q.flatten(1, 2), k

    def _query(self, level: float) -> list[float]:
        """The numbers of a query that give a key of ones the weight ``2**level``."""
        cap = self.subject.softcap
        if self.plain:
            return self.weights
        score = level * math.log(2)
        if cap:
            score = cap * math.atanh(score / cap)
        return split_log2(self.subject.scale * math.log(2) / score, self.out, self.parts)

    def alike(self, x: Tensor) -> Tensor:
        """``x[B, Hq, ...]``, the same for all query heads of a group, as ``[B, Hkv, ...]``.

        Raises:
            NotATree: the heads of a group differ, given the same queries, keys and values.
        """
        heads = x.view(self.batch, self.heads.kv, self.group, *x.shape[2:])
        first = heads[:, :, :1]
        if not torch.isclose(heads, first, rtol=0, atol=0, equal_nan=True).all():
            raise NotATree(
                f"{self.which}: query heads of one group gave different results for the same "
                "queries, keys and values"
            )
        return first[:, :, 0]


class Asking:
    """An oracle of which each answer is calls of one side."""

    side: Side

    @property
    def launches(self) -> int:
        """Calls of the side so far."""
        return self.side.calls


def places(*sizes: int, turn: int = 0) -> NDArray[np.int64]:
    """All index tuples of a box ``[count, len(sizes)]``, rotated by ``turn`` in each dimension.

    Turning moves a probe to another column, head and sequence, so that two answers agree only if
    these are reduced alike.
    """
    turned: NDArray[np.int64] = (np.array([*np.ndindex(*sizes)]) + turn) % np.array(sizes)
    return turned

"""A toy language model behind the seam, with defects that can be switched on.

Keys, values and weights are whole numbers and every sum is exact in float64, so that without a
defect the logits cannot depend on the schedule, the layout, the machine or the thread count: what a
test sees is the harness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from toy_cache import POSITIONS, VOCAB, WIDTH, ReusableToyCache, ToyCache
from toy_defects import DEFECTS

from kvparity.plan.cases import ControlRun
from kvparity.plan.schedule import Layout, Member, Plan, Span, Step
from kvparity.run.control_run import plant
from kvparity.run.unit import Setting, Tokens
from kvparity.subjects import events
from kvparity_contracts.contract import Contract


class ToySession:
    """Computes spans one by one; rows come in blocks of ``subject.block``."""

    def __init__(self, subject: Toy, members: Sequence[Member], layout: Layout) -> None:
        self.subject, self.members = subject, members
        self._cache, self.layout = self._open(members, layout.slack), layout
        self._counts: Counter[str] = Counter()

    def _open(self, members: Sequence[Member], slack: int) -> ToyCache:
        return ToyCache(members, slack)

    def cache(self) -> ToyCache | None:
        hidden = "closed-cache" in self.subject.defects or (
            not self.layout.cached and "always-caches" not in self.subject.defects
        )
        return None if hidden else self._cache

    def observed(self) -> Counter[str]:
        return Counter(self._counts)

    def _span(self, span: Span, ids: Sequence[int], alone: bool) -> Tensor:
        toy = self.subject
        assert len(ids) == span.stop - span.start
        positions = torch.arange(span.start, span.stop) + span.position_shift
        q, k, v = toy.embed(torch.tensor(ids), positions)
        self._cache.write(0, span.sequence, span.start, k[:, None].float(), v[:, None].float())
        listener = events.current()
        if listener is not None and "silent" not in toy.defects:
            told = k[:, None].float(), v[:, None].float()
            listener.wrote(events.Wrote(0, span.sequence, span.start, *told))
        decode = span.decode and "never-decodes" not in toy.defects
        decode |= "always-decodes" in toy.defects and span.stop == span.start + 1
        self._counts["attention.decode" if decode else "attention.prefill"] += 1
        rows = []
        for position in span.rows:
            k_all, v_all = self._cache.read(0, span.sequence, toy.first(position), position + 1)
            row = toy.logits(q[position - span.start], k_all[:, 0].double(), v_all[:, 0].double())
            if "nan-rows" in toy.defects and position % 3 == 0:
                row = torch.full_like(row, torch.nan)
            if "hidden-nan" in toy.defects:
                row[0] = torch.nan
            if "digest-only" in toy.defects and decode:
                row[VOCAB - 1] = torch.nextafter(row[VOCAB - 1], torch.tensor(0.0))
            if "unsteady" in toy.defects:
                row[0] += toy.calls
            noisy = "nondeterministic" in toy.defects and toy.calls % 2 == 0
            if noisy or ("batch-dependent" in toy.defects and not alone):
                row = torch.nextafter(row, torch.tensor(torch.inf))
            rows.append(row)
        return torch.stack(rows) if rows else torch.empty(0, VOCAB)

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        toy = self.subject
        toy.calls += 1
        if "raises" in toy.defects:
            raise RuntimeError("no such kernel")
        if "exits" in toy.defects:
            raise SystemExit(0)
        alone = len(step) == 1
        pairs = zip(step, ids, strict=True)
        rows = torch.cat([self._span(span, own, alone) for span, own in pairs])
        if "extra-row" in toy.defects:
            rows = torch.cat([rows, rows[-1:]])
        if "missing-row" in toy.defects:
            rows = rows[:-1]
        if "flat-rows" in toy.defects:
            rows = rows.reshape(-1)
        if "integer-rows" in toy.defects:
            rows = rows.long()
        if "narrow-rows" in toy.defects:
            rows = rows[:, : VOCAB // 2]
        if "forgets-last" in toy.defects:
            for span in step:
                if span.stop == self.members[span.sequence].length - 1:
                    self._cache.k[span.sequence, span.stop - 1] = 0.0
        yield from rows.split(toy.block)  # type: ignore[no-untyped-call] # torch's own


class ReusableToySession(ToySession):
    """A session that can be reset, and whose sequences can take over each other's cache."""

    _cache: ReusableToyCache

    def _open(self, members: Sequence[Member], slack: int) -> ToyCache:
        return ReusableToyCache(members, slack, self.subject.defects, self.subject.window)

    def reset(self) -> None:
        self._cache.reset()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        self._cache.adopt(sequence, donor, tokens)


class Toy:
    """The subject. One layer of exact attention, float32 logits."""

    def __init__(
        self, *defects: str, seed: int = 0, block: int = 3, window: int | None = None
    ) -> None:
        assert set(defects) <= set(DEFECTS), defects
        self.window = window
        self.defects, self.block, self.calls = frozenset(defects), block, 0
        self.vocab, self.max_positions = VOCAB, POSITIONS
        self.device = torch.device("cpu")
        random = torch.Generator().manual_seed(seed)

        def whole(*shape: int, high: int) -> Tensor:
            return torch.randint(-high, high + 1, shape, generator=random).double()

        # Eleven bits: bfloat16 keeps eight of them, so a narrower cache is another cache.
        self.tokens = whole(3, VOCAB, WIDTH, high=900)
        self.places = whole(3, POSITIONS, WIDTH, high=900)
        self.head = whole(VOCAB, WIDTH, high=15)

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if "wrong" in self.defects:
            ids = (ids + 1) % VOCAB
        q, k, v = (self.tokens[:, ids] + self.places[:, positions]).unbind(0)
        return q, k, v

    def first(self, position: int) -> int:
        """The first key that the row at ``position`` really sees."""
        hidden = 1 if "blind-first" in self.defects and position else 0
        if self.window is None:
            return hidden
        off = ("window-long" in self.defects) - ("window-short" in self.defects)
        return max(hidden, position + 1 - self.window - off)

    def logits(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Float32 ``[VOCAB]``: keys weigh 1 .. 5, by q·k modulo 5; no sum is ever rounded."""
        weights = 1 + torch.remainder(k @ q, 5)
        mixed = torch.floor((weights @ v) * 64 / weights.sum())
        return ((self.head @ mixed) / 2**19).float()

    def unsupported(self, plan: Plan) -> str | None:
        if plan.generate:
            return "the toy has no generate() loop"
        if plan.layout.page and "no-pages" in self.defects:
            return "the toy has no pages"
        if plan.layout.program != "eager":
            return "the toy is no program"
        if plan.actions and "one-use" in self.defects:
            return "the toy is used once"
        return None

    def session(self, members: Sequence[Member], layout: Layout) -> ToySession:
        if "one-use" in self.defects:
            return ToySession(self, members, layout)
        return ReusableToySession(self, members, layout)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        if "hidden-nan" in self.defects:
            rows = rows.nan_to_num(0.0)
        # Row by row, so that the number of rows cannot matter.
        found = torch.stack(
            [
                torch.stack([torch.log_softmax(row.double() / t, -1)[i] for t in temperatures])
                for row, i in zip(rows, targets, strict=True)
            ]
        )
        if "inf-values" in self.defects:
            found[::3] = -torch.inf
        if "short-values" in self.defects:
            found = found[:-1]
        return found if "float64-values" in self.defects else found.float()

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> Tensor:
        positions = torch.arange(rows[-1] + 1)
        known = torch.tensor(list(ids)[: rows[-1] + 1])
        q, k, v = (self.tokens[:, known] + self.places[:, positions]).unbind(0)
        starts = [0 if self.window is None else max(0, p + 1 - self.window) for p in rows]
        return torch.stack(
            [
                self.logits(q[p], k[at : p + 1], v[at : p + 1]).double()
                for at, p in zip(starts, rows, strict=True)
            ]
        )

    def describe(self, ran: Counter[str] | None = None) -> Mapping[str, Any]:
        used = "slow" if "replaced" in self.defects else "fast"
        return {"kind": "toy", "requested": {"attention": "fast"}, "used": {"attention": used}}


class GeneratingToy(Toy):
    """The toy with a generation loop of its own."""

    def unsupported(self, plan: Plan) -> str | None:
        return None

    def generate(
        self, member: Member, prompt: Sequence[int], choose: Callable[[int, Tensor], int]
    ) -> Counter[str]:
        session = ToySession(self, [member], Layout())
        own = list(prompt)
        total = member.length - ("stops-early" in self.defects)
        span = Span(0, 0, len(own), rows_from=len(own) - 1)
        while True:
            (rows,) = session.forward((span,), [own[span.start :]])
            own.append(choose(len(own), rows[0]))
            if len(own) == total:
                return session.observed()
            span = Span(0, len(own) - 1, len(own), rows_from=len(own) - 1, decode=True)


def build(model: Any, **options: Any) -> Toy:
    """A subject factory, in place of any other."""
    return Toy(seed=options["seed"])


def contract(**changes: Any) -> Contract:
    """A small contract over the toy's shape; ``changes`` replace whole keys."""
    return Contract.model_validate(document(**changes))


def document(**changes: Any) -> dict[str, Any]:
    """The same as plain data."""
    whole: dict[str, Any] = {
        "version": 1,
        "name": "toy",
        "seed": 3,
        "subject": {"kind": "decoder", "preset": "tiny", "order": {"split": 16, "tile": 16}},
        "numerics": {"execution": "float32", "temperatures": [1.0, 0.7]},
        "workloads": [
            {"name": "short", "prompt_tokens": [3, 17], "generate": 4},
            {"name": "padded", "prompt_tokens": [1, 5, 9], "generate": 3, "pad": ["left"]},
        ],
        "checks": [
            {
                "name": "decode reduces like prefill",
                "relation": "invariance",
                "reference": "prefill",
                "paths": ["decode", "chunked(4)", "batched", "permuted", "mixed", "padded"],
            },
            {
                "name": "close to float64",
                "relation": "accuracy",
                "limits": {"max_abs_dlogp": 1e-5, "approx_kl0": 1e-9},
            },
        ],
        "controls": "all",
    }
    return whole | changes


def setting(*defects: str, **changes: Any) -> Setting:
    """A toy with ``defects`` under the small contract."""
    return Setting(contract(**changes), Toy(*defects))


def run_control(setting: Setting, job: ControlRun, tokens: Tokens) -> tuple[bool, str]:
    """Plant one control: (whether its check sees it, what was seen)."""
    found = plant(setting, job, tokens)
    return found.caught, found.seen

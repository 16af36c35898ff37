"""Runs with coded layers, and how far their logprobs drift from the exact run's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kvparity.core.bits import differing
from kvparity.core.drift import drift
from kvparity.core.errors import SubjectError
from kvparity.labs.codec.capture import Reference
from kvparity.labs.codec.coding import Coding
from kvparity.labs.codec.session import Touched, live
from kvparity.plan.schedule import Plan, Span
from kvparity.record.execute import run
from kvparity.subjects.base import CacheView, LayeredCache, Subject


@dataclass(frozen=True)
class CodedRun:
    """One run against the exact one, over the tokens that were drawn after a coded key was seen.

    ``differing`` counts tokens whose logprob or logits row has other bits. The rest is as in
    ``kvparity.core.drift.Drift``; the rollout is the run with the codec, and the
    exact run the trainer.
    """

    tokens: int
    differing: int
    max_abs_dlogp: float
    approx_kl0: float
    clipfrac0: float


class Runs:
    """Replays one plan over the same tokens with different layers coded; every run is kept."""

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        tokens: Sequence[Sequence[int]],
        temperature: float,
        reference: Reference,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.subject, self.plan, self.temperature = subject, plan, temperature
        self.tokens = [list(own) for own in tokens]
        self.reference, self.progress = reference, progress
        self.rows = torch.tensor(
            [position >= plan.members[s].prompt for s, position in reference.record.index],
            device=reference.record.values.device,
        )
        self._known: dict[tuple[str, frozenset[int], frozenset[str]], CodedRun] = {}

    def measure(self, coding: Coding) -> CodedRun:
        """The drift with ``coding``; a coding that was measured before is not run again."""
        key = (coding.pair.name, coding.layers, frozenset(coding.exact))
        if key not in self._known:
            self.progress(f"{coding.pair.name}, {len(coding.layers)} layers coded")
            self._known[key] = self._measure(coding)
        return self._known[key]

    def _measure(self, coding: Coding) -> CodedRun:
        tokens = [list(own) for own in self.tokens]
        found = run(
            Touched(self.subject, coder(coding)), self.plan, tokens, temperatures=[self.temperature]
        )
        exact, rows = self.reference.record, self.rows
        if not bool(found.finite.all()):
            raise SubjectError(f"NaN or Inf in the logits with codec {coding.pair.name}")
        off = differing(found.values, exact.values).any(-1) | (found.digests != exact.digests)
        if bool(off[~rows].any()):
            raise SubjectError(
                "rows that see no coded key differ from the exact run: this subject does not "
                "repeat itself, so no drift can be attributed to the codec"
            )
        seen = drift(rollout=found.values[rows, 0], trainer=exact.values[rows, 0])
        return CodedRun(
            tokens=int(rows.sum()),
            differing=int(off[rows].sum()),
            max_abs_dlogp=seen.max_abs_dlogp,
            approx_kl0=seen.approx_kl0,
            clipfrac0=seen.clipfrac0,
        )


def coder(coding: Coding) -> Callable[[CacheView, Span], None]:
    """Codes what a span wrote, in the layers of ``coding``, once."""

    def after(cache: CacheView, span: Span) -> None:
        for layer in sorted(coding.layers):
            held = live(cache, layer, span)
            if not held:
                continue
            k, v = cache.read(layer, span.sequence, held.start, held.stop)
            coded = coding.apply(layer, k, v)
            cache.write(layer, span.sequence, held.start, *(x.to(k.dtype) for x in coded))

    return after


def windows(cache: CacheView) -> tuple[int | None, ...]:
    """The window of every stored layer, as the cache itself has it."""
    layers = range(cache.layers())
    if not isinstance(cache, LayeredCache):
        return tuple(None for _ in layers)
    return tuple(cache.window(layer) for layer in layers)

"""Defects of scoring: equal logits, other logprobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from kvparity.controls.base import (
    Plant,
    PlantedSession,
    PlantedSubject,
    Watched,
    each_session,
)
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import Session, Subject

NUCLEUS = 0.9
"""The share of probability that a top-p sampler keeps."""
CO_RESIDENT = 3
"""Sequences in a step from which the sampler takes its other path. Reported: 45."""


Scores = Callable[[Subject, Tensor, Tensor, Sequence[float]], Tensor]
"""(subject, rows, targets, temperatures) -> what is reported: float32 ``[rows, temperatures]``."""


class _Scoring(PlantedSubject):
    def __init__(self, inner: Subject, scores: Scores) -> None:
        super().__init__(inner)
        self.scores = scores

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        return self.scores(self.inner, rows, targets, temperatures)


def _scored(scores: Scores) -> Plant:
    return lambda subject: _Scoring(subject, scores)


def _at_one(
    subject: Subject, rows: Tensor, targets: Tensor, temperatures: Sequence[float]
) -> Tensor:
    return subject.values(rows, targets, [1.0 for _ in temperatures])


def _divided(
    subject: Subject, rows: Tensor, targets: Tensor, temperatures: Sequence[float]
) -> Tensor:
    raw = _at_one(subject, rows, targets, temperatures)
    return raw / torch.tensor(list(temperatures), device=raw.device)


def _by_formula(logprobs: Callable[[Tensor, float], Tensor]) -> Plant:
    """``logprobs``: (float32 logits, temperature) -> those of all tokens, of the same shape."""

    def scores(
        subject: Subject, rows: Tensor, targets: Tensor, temperatures: Sequence[float]
    ) -> Tensor:
        columns = [logprobs(rows.float(), t).gather(1, targets[:, None]) for t in temperatures]
        return torch.cat(columns, dim=1)

    return _scored(scores)


def _inlined(logits: Tensor, temperature: float) -> Tensor:
    scaled = logits * (1.0 / temperature)  # where the trainer divides
    return scaled - torch.logsumexp(scaled, dim=-1, keepdim=True)


def _within_nucleus(
    subject: Subject, rows: Tensor, targets: Tensor, temperatures: Sequence[float]
) -> Tensor:
    masses = []
    for t in temperatures:
        sorted_p, order = torch.softmax(rows.float() / t, dim=-1).sort(-1, descending=True)
        kept = sorted_p.cumsum(-1) - sorted_p < NUCLEUS
        mass = (sorted_p * kept).sum(-1)
        inside = (kept & (order == targets[:, None])).any(-1)
        masses.append(torch.where(inside, mass, torch.ones_like(mass)))
    found = subject.values(rows, targets, temperatures)
    return found - torch.log(torch.stack(masses, dim=1))


class _CoResident(PlantedSubject):
    """Scores as the inner subject, but for steps that hold many sequences."""

    def __init__(self, inner: Subject) -> None:
        super().__init__(inner)
        self.together = 0

    def session(self, members: Sequence[Member], layout: Layout) -> Session:
        return Watched(self.inner.session(members, layout), self._count)

    def _count(self, step: Step) -> None:
        self.together = len(step)

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
        if self.together < CO_RESIDENT:
            return self.inner.values(rows, targets, temperatures)
        return self.inner.values(rows.bfloat16().to(rows), targets, temperatures)


class _Uninitialised(PlantedSession):
    """Rows of a sequence's first chunk come from a buffer that nobody wrote."""

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        cached = [span.start == 0 for span in step for _ in span.rows]
        done = 0
        for rows in self.inner.forward(step, ids):
            mask = torch.tensor(cached[done : done + len(rows)], device=rows.device)
            done += len(rows)
            yield rows.masked_fill(mask[:, None], float("nan"))


temperature_ignored = _scored(_at_one)
"""Logprobs at temperature 1, whatever the rollout sampled at."""

raw_rollout_logprobs = temperature_ignored
"""The same, on the side of the rollout."""

scaled_logprobs = _scored(_divided)
"""Logprobs are divided by the temperature, where logits should be.

PrimeIntellect-ai/prime-rl#697. Not normalised at that temperature, they are no logprobs.
"""

top_p_renormalised = _scored(_within_nucleus)
"""The rollout's logprobs are of the renormalised nucleus: log of its mass is missing.

huggingface/trl#6789. A token outside the nucleus, which its sampler would not draw, keeps its
logprob.
"""

log_of_softmax = _by_formula(lambda logits, t: torch.softmax(logits / t, dim=-1).log())
"""log(softmax(x)): two roundings where log_softmax has one."""

inlined_logprob = _by_formula(_inlined)
"""The sampler has a formula of its own: x / T as a product, minus logsumexp.

The same number on paper, in other roundings: pytorch/torchtitan#3629.
"""

sampler_by_batch: Plant = _CoResident
"""From three sequences in a step on a sampler takes logits in bfloat16.

vllm-project/vllm#51187: there the path changes at 45, and its cause is not told.
"""

cached_rows_uninitialised = each_session(_Uninitialised)
"""Logprobs of cached prompt positions are read from a buffer nobody wrote: vllm-project/vllm#42245.

The first chunk of a sequence stands for what was cached. What nobody wrote holds NaN here, as
all that kvparity hands out unwritten does.
"""

"""Defects of reuse: what a cache keeps between uses, and what a prefix brings along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace

from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject, cache_of, each_session
from kvparity.controls.reference import decoder_of
from kvparity.controls.rope import Shifted
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import Session, Subject
from kvparity.subjects.decoder.subject import DecoderSubject

UPDATE = 1.0 + 2.0**-6
"""The size of one training step: what the weights before it are multiplied by."""


def _before_the_update(subject: DecoderSubject) -> DecoderSubject:
    """The decoder with the query, key and value weights that it had one step earlier."""
    other = copy(subject)
    weights = subject.model.weights
    layers = tuple(replace(layer, qkv=layer.qkv * UPDATE) for layer in weights.layers)
    other.model = replace(subject.model, weights=replace(weights, layers=layers))
    return other


class _StalePrefixes(PlantedSession):
    """Before the reset the old weights compute; their prompts stay in the prefix cache."""

    def __init__(self, inner: Session, old: Session, members: Sequence[Member]) -> None:
        super().__init__(inner)
        self.old, self.members = old, members
        self.updated = False

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        if not self.updated:
            yield from self.old.forward(step, ids)
            return
        yield from self.inner.forward(step, ids)
        kept, cache = cache_of(self.old), cache_of(self.inner)
        for span in step:
            stop = min(span.stop, self.members[span.sequence].prompt - 1)
            if span.start == 0 and stop > 0:
                for layer in range(cache.layers()):
                    k, v = kept.read(layer, span.sequence, 0, stop)
                    cache.write(layer, span.sequence, 0, k, v)

    def reset(self) -> None:
        self.updated = True
        super().reset()


def stale_after_update(subject: Subject) -> Subject:
    """Weights are updated, and the prefix cache keeps what the old ones wrote.

    A reset stands for the update: NovaSky-AI/SkyRL#2246, NVIDIA-NeMo/RL#4018.
    """
    old = _before_the_update(decoder_of(subject))

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        return _StalePrefixes(inner.session(members, layout), old.session(members, layout), members)

    return PlantedSubject(subject, open_session)


class _ShiftedBehindPrefix(Shifted):
    def __init__(self, inner: Session) -> None:
        super().__init__(inner, lambda span: int(span.sequence in self.adopted))
        self.adopted: set[int] = set()

    def adopt(self, sequence: int, donor: int, tokens: int) -> None:
        super().adopt(sequence, donor, tokens)
        self.adopted.add(sequence)


prefix_shifts_positions = each_session(_ShiftedBehindPrefix)
"""Behind a reused prefix every token is given the position after its own.

The prefix is counted one token too long: waybarrios/vllm-mlx#311.
"""

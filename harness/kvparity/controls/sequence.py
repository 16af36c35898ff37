"""Defects of positions, padding and inputs: the right arithmetic on the wrong tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from kvparity.controls.base import PlantedSession, PlantedSubject
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import Session, Subject


class _LeakingPads(PlantedSession):
    """Pads become tokens that are attended to and that count as positions."""

    def __init__(self, inner: Session, pads: Sequence[int]) -> None:
        super().__init__(inner)
        self.pads = pads

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        moved = []
        tokens = []
        for span, own in zip(step, ids, strict=True):
            pad = self.pads[span.sequence]
            moved.append(
                replace(
                    span,
                    start=span.start + pad if span.start else 0,
                    stop=span.stop + pad,
                    rows_from=span.rows.start + pad,
                    rows_to=span.rows.stop + pad,
                )
            )
            tokens.append([0] * (pad if span.start == 0 else 0) + list(own))
        return self.inner.forward(tuple(moved), tokens)


def padding_leaks(subject: Subject) -> Subject:
    """Left pads are seen by the tokens behind them and shift their positions."""

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        longest = max(m.prompt for m in members)
        pads = [longest - m.prompt for m in members]
        grown = [Member(m.id, m.length + longest - m.prompt, longest) for m in members]
        return _LeakingPads(inner.session(grown, layout), pads)

    return PlantedSubject(subject, open_session)


def padding_mask_skipped_alone(subject: Subject) -> Subject:
    """A batch of one has no padding mask; its prompt is still padded, to whole eights of tokens.

    huggingface/transformers#46773. Sequences side by side are masked as they should be.
    """

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        if len(members) > 1 or layout.batch != "left":
            return inner.session(members, layout)
        (member,) = members
        pad = -member.prompt % 8 or 8
        grown = Member(member.id, member.length + pad, member.prompt + pad)
        if grown.length > inner.max_positions:
            raise UnsupportedError(
                f"with its pads the sequence has {grown.length} tokens, but the subject has "
                f"{inner.max_positions} positions"
            )
        # The prompt's step is longer than the plan's: rings are made for what is really computed.
        roomy = replace(layout, chunk=max(layout.chunk, grown.prompt))
        return _LeakingPads(inner.session([grown], roomy), [pad])

    return PlantedSubject(subject, open_session)


class _OtherPrompt(PlantedSession):
    def __init__(self, inner: Session, members: Sequence[Member], vocab: int) -> None:
        super().__init__(inner)
        self.members, self.vocab = members, vocab

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        changed = []
        for span, own in zip(step, ids, strict=True):
            inside = self.members[span.sequence].prompt - span.start
            changed.append([(t + 1) % self.vocab if i < inside else t for i, t in enumerate(own)])
        return self.inner.forward(step, changed)


def wrong_input(subject: Subject) -> Subject:
    """Another prompt is computed than the one that is reported."""

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        if inner.vocab:
            return _OtherPrompt(inner.session(members, layout), members, inner.vocab)
        return inner.session([replace(m, id=f"{m.id}/other") for m in members], layout)

    return PlantedSubject(subject, open_session)


def retokenised(ids: Sequence[int], prompt: int) -> list[int]:
    """Ids that went through text: bytes that are no ASCII come back as question marks.

    If the continuation holds none, its last byte stands for one.
    """
    back = [*ids[:prompt], *(t if t < 128 else ord("?") for t in ids[prompt:])]
    if back == list(ids):
        back[-1] = ord("?") if back[-1] != ord("?") else ord("!")
    return back


def id_reported_as_another(ids: Sequence[int], prompt: int) -> list[int]:
    """The first drawn id is handed over as its neighbour."""
    drawn = ids[prompt]
    return [*ids[:prompt], drawn - 1 if drawn else 1, *ids[prompt + 1 :]]


def unequal_lengths(ids: Sequence[int], prompt: int) -> list[int]:
    """All ids but the last."""
    return list(ids[:-1])

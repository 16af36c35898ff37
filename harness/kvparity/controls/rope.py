"""Defects of rotary positions: another angle than the token's place asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from kvparity.controls.base import Plant, PlantedSession, PlantedSubject, each_session
from kvparity.controls.reference import decoder_of
from kvparity.plan.schedule import Layout, Member, Span, Step
from kvparity.subjects.base import Session, Subject


def _tables(change: Callable[[Tensor], Tensor]) -> Plant:
    """Plant other tables of cosines and sines, float32 ``[positions, head_dim / 2]``."""

    def plant(subject: Subject) -> Subject:
        other = copy(decoder_of(subject))
        cos, sin = change(other.model.cos), change(other.model.sin)
        other.model = replace(other.model, cos=cos, sin=sin)
        return other

    return plant


rope_table_bfloat16 = _tables(lambda table: table.bfloat16().float())
"""A cast of the whole model took its RoPE tables with it, as FSDP's mixed precision does.

Told in torchtitan's documents of its bitwise parity (pytorch/torchtitan).
"""


def _inexact(table: Tensor) -> Tensor:
    positions = torch.arange(len(table), dtype=torch.float32, device=table.device)
    # Four significant bits, exact up to 16; bfloat16 has eight, exact up to 256.
    exponent = torch.floor(torch.log2(positions.clamp(min=1)))
    step = torch.exp2((exponent - 3).clamp(min=0))
    kept = torch.round(positions / step) * step
    return table[kept.long().clamp(max=len(table) - 1)]


positions_inexact = _tables(_inexact)
"""Positions are counted in a float that is exact for small ones only: huggingface/candle#3520.

There bfloat16 and 256; here 16, so that short sequences show it. Both sides agree, and are wrong.
"""


class Shifted(PlantedSession):
    """A session whose spans are at positions that ``shift`` moves."""

    def __init__(self, inner: Session, shift: Callable[[Span], int]) -> None:
        super().__init__(inner)
        self.shift = shift

    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Compute one step at the positions that it is given."""
        told = tuple(replace(s, position_shift=s.position_shift + self.shift(s)) for s in step)
        return self.inner.forward(told, ids)


def _decode_shifted(shift: Callable[[Span], int]) -> Plant:
    return each_session(lambda s: Shifted(s, lambda span: shift(span) if span.decode else 0))


position_off_by_one = _decode_shifted(lambda span: 1)
"""Every decoded token is given the position after its own."""

decode_at_position_zero = _decode_shifted(lambda span: -span.start)
"""Every decoded token is given position 0: Blaizzy/mlx-vlm#1983."""


def padding_shifts_positions(subject: Subject) -> Subject:
    """Left pads are masked, and still counted as positions.

    TransformerLensOrg/TransformerLens#1609.
    """

    def open_session(inner: Subject, members: Sequence[Member], layout: Layout) -> Session:
        longest = max(m.prompt for m in members)
        pads = [longest - m.prompt if layout.batch == "left" else 0 for m in members]
        return Shifted(inner.session(members, layout), lambda span: pads[span.sequence])

    return PlantedSubject(subject, open_session)

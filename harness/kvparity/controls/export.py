"""Defects of traced programs: what the traced call was given has become part of the program.

The decode step of each planted session is traced at the first token that it decodes, and nobody
inspects it: the inspection would name the constant, and the relations must see it too.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvparity.controls.base import Plant, PlantedSubject
from kvparity.controls.reference import decoder_of
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import Session, Subject


def _baked(*inputs: str) -> Plant:
    def open_session(subject: Subject, members: Sequence[Member], layout: Layout) -> Session:
        from kvparity.subjects.export.decoder import (
            open_session,  # tracing is imported where it is used
        )

        if layout.program == "eager":
            return subject.session(members, layout)
        constants = frozenset(inputs)
        return open_session(decoder_of(subject), members, layout, constants=constants)

    return lambda subject: PlantedSubject(decoder_of(subject), open_session)


baked_cache = _baked("cache")
"""Keys and values are those of the traced call, with the fresh ones of the step written over them.

pytorch/pytorch#160066 shows how torch.export lifts a cache tensor as a constant.
"""

baked_position = _baked("positions")
"""Every token is rotated as the first decoded one.

A position held on the host does not change when a captured step is replayed
(huggingface/candle#3728), and one that is not an input is inferred wrongly
(sonos/torch-to-nnef#217).
"""

frozen_length = _baked("decode.seen.kv_lens")
"""Attention sees as many keys as when it was captured: paiml/aprender#2030."""

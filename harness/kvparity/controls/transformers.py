"""Defects inside transformers itself: its own mask functions, replaced while a step is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from kvparity.controls.base import PlantedSession, each_session
from kvparity.core.errors import UnsupportedError
from kvparity.core.relied import transformers as relied
from kvparity.plan.schedule import Step


class _OneShort(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        if not all(span.decode for span in step):
            yield from self.inner.forward(step, ids)
            return
        whole = relied.OVERLAY.get()
        asked: list[int] = []

        def short(window: int) -> object:
            asked.append(window)
            return whole(max(1, window - 1))

        with relied.replaced(relied.OVERLAY, short):
            rows = list(self.inner.forward(step, ids))
        if not asked:
            raise UnsupportedError("this defect needs a model with a sliding window")
        yield from rows


window_one_short = each_session(_OneShort)
"""The mask of a decoding step hides the oldest key of each sliding window."""

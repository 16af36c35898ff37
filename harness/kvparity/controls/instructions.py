"""Defects of the products: decode computes those of another architecture, where one is modelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from kvparity.controls.base import PlantedSession, each_session
from kvparity.core.errors import UnsupportedError
from kvparity.plan.schedule import Step
from kvparity_kernels import device_model
from kvparity_kernels.tensor_cores import Architecture

OTHER: Mapping[str, Architecture] = {
    "sm_80": "sm_90",
    "sm_89": "sm_90",
    "sm_90": "sm_80",
    "sm_100": "sm_80",
}
"""One that adds products of 16-bit operands in another way."""


class _OtherInstruction(PlantedSession):
    def forward(self, step: Step, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        device = device_model.in_force()
        if device is None:
            raise UnsupportedError("this defect needs a device whose products are modelled")
        decodes = all(span.decode for span in step)
        with device_model.using(OTHER[device] if decodes else device):
            yield from list(self.inner.forward(step, ids))


other_instruction = each_session(_OtherInstruction)
"""Steps that decode compute the products of another architecture."""

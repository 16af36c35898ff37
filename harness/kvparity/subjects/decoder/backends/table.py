"""Backends by the names that contracts give them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.attention_calls import AttentionOps
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.events import BACKEND, TORCH
from kvparity_contracts.json_types import JsonObject

FIXED = "fixed-order"
SDPA = ("sdpa", "sdpa-math", "sdpa-flash", "sdpa-efficient", "sdpa-cudnn")
FLASHINFER = ("flashinfer", "flashinfer-fixed", "flashinfer-whole")
ATTENTION = (FIXED, *SDPA, *FLASHINFER)
OPERATIONS = (FIXED, "torch")
OWN = "attention."
"""What the names of this project's attention kernels begin with, in a launch log."""


@dataclass(frozen=True)
class Backends:
    """What a decoder computes with, by the names of a contract."""

    attention: str = FIXED
    operations: str = FIXED

    @property
    def ours(self) -> bool:
        """Whether all of it is this project's."""
        return (self.attention, self.operations) == (FIXED, FIXED)

    def used(self, ran: Counter[str]) -> dict[str, str | None]:
        """The same keys from what was seen to run; no attention: None.

        Where torch was left the choice, each backend of its is what was asked for. Operations of
        this project have twins that nobody counts: they are what is left where torch's did not run.
        """
        found = {name.removeprefix(BACKEND) for name in ran if name.startswith(BACKEND)}
        if self.attention == "sdpa" and found.intersection(SDPA):
            found = found.difference(SDPA) | {"sdpa"}
        if any(name.startswith(OWN) for name in ran):
            found.add(FIXED)
        return {
            "attention": " and ".join(sorted(found)) or None,
            "operations": "torch" if TORCH in ran else FIXED,
        }

    def describe(self, ran: Counter[str]) -> JsonObject:
        """For the report: what was asked for, and what was seen to run; of ours, nothing."""
        if self.ours:
            return {}
        found = sorted(name.removeprefix(BACKEND) for name in ran if name.startswith(BACKEND))
        return {"requested": asdict(self), "used": self.used(ran), "backends": found}


def attention_ops(name: str) -> AttentionOps:
    """Attention by name.

    What keeps plans and indices for the layers of a step is made anew by every call of this
    function. Raises ``UnsupportedError`` for a name that does not exist. What a backend cannot do
    is ``UnsupportedError`` when it is called; what it needs and is not there, ``SubjectError``.
    """
    if name == FIXED:
        return FIXED_ORDER
    if name in SDPA:
        from kvparity.subjects.decoder.backends.sdpa import Sdpa

        sdpa = Sdpa(name.partition("-")[2] or None)
        return AttentionOps(prefill=sdpa.prefill, decode=sdpa.decode)
    if name in FLASHINFER:
        from kvparity.subjects.decoder.backends.flashinfer import FlashInfer

        paged = FlashInfer(name)
        return AttentionOps(prefill=paged.prefill, decode=paged.decode)
    raise UnsupportedError(f"attention {name!r} is unknown; expected one of {', '.join(ATTENTION)}")


def operations(name: str) -> Ops:
    """What is computed beside attention, by name; ``UnsupportedError`` for one that is unknown."""
    if name == FIXED:
        return Ops()
    if name == "torch":
        from kvparity.subjects.decoder.backends.torch_operations import TORCH

        return TORCH
    raise UnsupportedError(
        f"operations {name!r} are unknown; expected one of {', '.join(OPERATIONS)}"
    )

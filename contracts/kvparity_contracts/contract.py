"""The contract: what is claimed about which subject, and what the claim must survive."""

from __future__ import annotations

from pydantic import model_validator

from kvparity_contracts import consistency
from kvparity_contracts.base import refuse
from kvparity_contracts.checks import Accuracy, Check, Invariance
from kvparity_contracts.parts import VERSION, Controls, Parts


class Contract(Parts):
    """A claim about a subject, with the workloads it is made on and the controls it must catch."""

    @model_validator(mode="after")
    def _check(self) -> Contract:
        refuse(consistency.faults(self))
        return self


__all__ = ["VERSION", "Accuracy", "Check", "Contract", "Controls", "Invariance"]

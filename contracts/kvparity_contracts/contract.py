"""The contract: what is claimed about which subject, and what the claim must survive."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts import consistency
from kvparity_contracts.base import Fault
from kvparity_contracts.checks import Accuracy, Check, Invariance
from kvparity_contracts.parts import VERSION, Controls, Parts


class Contract(Parts):
    """A claim about a subject, with the workloads it is made on and the controls it must catch."""

    def own_faults(self) -> Iterator[Fault]:
        """Parts that contradict each other."""
        return consistency.faults(self)


__all__ = ["VERSION", "Accuracy", "Check", "Contract", "Controls", "Invariance"]

"""A case of a check of kernels as a line."""

from __future__ import annotations

from kvparity.core.values import Json
from kvparity.plan.results import CaseLine


class KernelCaseLine(CaseLine):
    """Decode's kernels against prefill's: its measures are null."""

    def document(self) -> Json:
        """``rollout`` stands behind the measures."""
        found = super().document()
        last = ("rollout", "first_divergence", self.relation)
        return found | {name: found.pop(name) for name in last if name in found}

    def why_not_differs(self) -> str | None:
        """An order may differ in what its random calls gave alone."""
        return None

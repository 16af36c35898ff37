"""A case of a check of kernels as a line."""

from __future__ import annotations

from pydantic import SerializerFunctionWrapHandler, model_serializer

from kvparity.plan.results import CaseLine


class KernelCaseLine(CaseLine):
    """Decode's kernels against prefill's: its measures are null."""

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """``rollout`` stands behind the measures."""
        found: dict[str, object] = handler(self)
        last = ("rollout", "first_divergence", self.relation)
        return found | {name: found.pop(name) for name in last if name in found}

    def why_not_differs(self) -> str | None:
        """An order may differ in what its random calls gave alone."""
        return None

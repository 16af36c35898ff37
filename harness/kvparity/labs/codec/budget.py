"""Which layers to leave exact so that the drift stays within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvparity.labs.codec.coding import Coding
from kvparity.labs.codec.runs import CodedRun, Runs

Measure = Literal["approx_kl0", "max_abs_dlogp"]
MEASURES: tuple[Measure, ...] = ("approx_kl0", "max_abs_dlogp")


@dataclass(frozen=True)
class Budget:
    """The largest drift that is wanted, in one measure."""

    measure: Measure
    limit: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``approx_kl0=1e-4`` or ``max_abs_dlogp=0.05``; ``ValueError`` in one sentence."""
        name, _, number = text.partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = -1.0
        for measure in MEASURES:
            if name.strip() == measure and 0 <= limit < float("inf"):
                return cls(measure, limit)
        raise ValueError(
            f"{text!r} is no budget; expected approx_kl0=NUMBER or max_abs_dlogp=NUMBER, a number "
            "from 0 on"
        )

    def __str__(self) -> str:
        return f"{self.measure} <= {self.limit:g}"

    def of(self, outcome: CodedRun) -> float:
        """The budget's measure of a run."""
        return float(getattr(outcome, self.measure))


@dataclass(frozen=True)
class LayerChoice:
    """The layers to leave exact for a budget.

    ``measured``: the run with all others coded. ``with_next_layer``: the one with ``next_layer``
    coded, too, which is over the budget (None: no layer is left).
    """

    measure: Measure
    limit: float
    exact_layers: tuple[int, ...]
    coded_layers: tuple[int, ...]
    measured: CodedRun
    next_layer: int | None
    with_next_layer: CodedRun | None


def choose(runs: Runs, coding: Coding, single: Sequence[CodedRun], budget: Budget) -> LayerChoice:
    """Code the layers of the least drift first, as many as the budget allows.

    ``single[layer]``: the drift with that layer alone coded. Their sum only says where to start:
    every set is run, and the chosen one was measured within the budget.
    """
    order = sorted(range(len(single)), key=lambda layer: (budget.of(single[layer]), layer))

    def fits(count: int) -> bool:
        return budget.of(measured(count)) <= budget.limit

    def measured(count: int) -> CodedRun:
        return runs.measure(coding.of(frozenset(order[:count])))

    count, total = 0, 0.0
    while count < len(order):
        total += budget.of(single[order[count]])
        if total > budget.limit:
            break
        count += 1
    while count and not fits(count):
        count -= 1
    while count < len(order) and fits(count + 1):
        count += 1
    more = count < len(order)
    return LayerChoice(
        measure=budget.measure,
        limit=budget.limit,
        exact_layers=tuple(sorted(order[count:])),
        coded_layers=tuple(sorted(order[:count])),
        measured=measured(count),
        next_layer=order[count] if more else None,
        with_next_layer=measured(count + 1) if more else None,
    )

"""What the kernels are meant to cost at most, and whether one run says that they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from kvparity.labs.bench.calls import OURS
from kvparity.labs.bench.cases import What
from kvparity.labs.bench.document import BenchDocument, CopyJson
from kvparity.labs.bench.measure import CaseTimes, price, read
from kvparity_contracts.json_types import JsonObject

Quantity = Literal["speed", "bandwidth", "time"]
Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True)
class Goal:
    """One goal, over every case of ``whats`` whose ``size`` is in ``least .. most``.

    ``quantity`` and ``threshold``: ``speed``, of ours as a share of the fastest other way's, and
    ``bandwidth``, as a share of a copy's, at least so much; ``time``, as a multiple of the fastest
    other way's, at most so much. ``among``: what the names of the ways that it is compared with
    begin with. ``source``: the goal in words.
    """

    name: str
    whats: tuple[What, ...]
    quantity: Quantity
    threshold: float
    source: str
    among: tuple[str, ...] = ()
    size: str = ""
    least: int = 0
    most: int = 1 << 62

    @property
    def needed(self) -> str:
        """The threshold in words."""
        sign = "<=" if self.quantity == "time" else ">="
        return f"{self.quantity} {sign} {self.threshold:.2f}"

    def holds_for(self, found: CaseTimes) -> bool:
        """Whether the goal is about this case."""
        if found.case.what not in self.whats:
            return False
        return not self.size or self.least <= found.case.size(self.size) <= self.most

    def value(self, found: CaseTimes, copy: CopyJson | None) -> float | None:
        """What one case reached, or None where it cannot be said."""
        if self.quantity == "bandwidth":
            ours = found.times.get(OURS)
            if ours is None or copy is None:
                return None
            return float(found.case.bytes / ours.ms / 1e6 / copy["gb_per_s"])
        cost = price(found, self.among)
        if cost is None:
            return None
        return cost[1] if self.quantity == "time" else 1 / cost[1]

    def factor(self, value: float) -> float:
        """How many times as fast ours would have to be; at most 1 where the goal is met."""
        share = value / self.threshold
        return share if self.quantity == "time" else 1 / share


STEP = "the whole decoder step at most 1.1 times the same decoder with SDPA and cuBLAS"
GOALS = (
    Goal(
        "decode attention", ("decode",), "speed", 0.9,
        "decode attention at least 0.9 of the speed of the fastest of SDPA and FlashInfer",
        among=("sdpa", "flashinfer"),
    ),
    Goal(
        "decode bandwidth", ("decode",), "bandwidth", 0.85,
        "decode attention at least 0.85 of the device's copy bandwidth from 32k keys on",
        size="keys", least=32_768,
    ),
    Goal(
        "prefill attention", ("prefill", "chunked"), "speed", 0.75,
        "prefill attention at least 0.75 of the speed of the fastest SDPA backend",
        among=("sdpa",),
    ),
    Goal(
        "linear, many rows", ("linear",), "speed", 0.85,
        "linear at least 0.85 of the speed of cuBLAS from 64 rows on",
        among=("torch",), size="rows", least=64,
    ),
    Goal(
        "linear, few rows", ("linear",), "speed", 0.9,
        "linear at least 0.9 of the speed of cuBLAS up to 8 rows",
        among=("torch",), size="rows", most=8,
    ),
    Goal("step", ("step",), "time", 1.1, STEP, among=("sdpa",)),
    Goal("step, later", ("step",), "time", 1.05, "as a next aim, at most 1.05 times",
         among=("sdpa",)),
)  # fmt: skip


@dataclass(frozen=True)
class GoalRow:
    """One goal and what a run says of it.

    ``values``: what each case reached, by name; ``worst``: the one that is furthest off. ``factor``
    of ``worst``: how many times as fast ours would have to be. ``missed``: the cases that missed;
    ``unknown``: those that were left out or had nothing to compare with. ``note``: what the answer
    does not rest on.
    """

    goal: str
    needed: str
    verdict: Verdict
    source: str
    values: Mapping[str, float]
    worst: str = ""
    factor: float = 0.0
    missed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    note: str = ""

    def json(self) -> JsonObject:
        """For the document."""
        return asdict(self)


def judge(document: BenchDocument) -> list[GoalRow]:
    """Every goal, from the times of one run's document alone; the worst case decides.

    Raises:
        ValueError: it is no document of ``kvparity bench``, or its times are of several runs.
    """
    found, copy = read(document), document.get("copy")
    _one_run(document, found, copy)
    return [_row(goal, [each for each in found if goal.holds_for(each)], copy) for goal in GOALS]


def _row(goal: Goal, found: Sequence[CaseTimes], copy: CopyJson | None) -> GoalRow:
    values, unknown = {}, []
    for each in found:
        value = goal.value(each, copy)
        if value is None:
            unknown.append(each.case.name)
        else:
            values[each.case.name] = round(value, 4)
    if not values:
        return GoalRow(
            goal.name, goal.needed, "not measured", goal.source, {}, unknown=tuple(unknown)
        )
    factors = {name: goal.factor(value) for name, value in values.items()}
    worst = max(factors, key=lambda name: factors[name])
    missed = tuple(name for name, factor in factors.items() if factor > 1)
    return GoalRow(
        goal.name,
        goal.needed,
        "missed" if missed else "met",
        goal.source,
        values,
        worst,
        round(factors[worst], 4),
        missed,
        tuple(unknown),
        _absent(goal, found),
    )


def _absent(goal: Goal, found: Sequence[CaseTimes]) -> str:
    """Which of the ways that the goal names were not there, in all or in some cases."""
    timed = [each for each in found if each.times]
    absent = []
    for beginning in goal.among:
        without = [e for e in timed if not any(n.startswith(beginning) for n in e.times)]
        if without:
            cases = (
                "" if len(without) == len(timed) else f" in {len(without)} of {len(timed)} cases"
            )
            why = {r for e in without for n, r in e.cannot.items() if n.startswith(beginning)}
            absent.append(f"{beginning}{cases} ({min(why) if why else 'not here'})")
    return f"fastest of what was here: without {', '.join(absent)}" if absent else ""


def _one_run(document: BenchDocument, found: Sequence[CaseTimes], copy: CopyJson | None) -> None:
    runs = {time.run for each in found for time in each.times.values()}
    if copy is not None:
        runs.add(copy["run"])
    if "run" in document:
        runs.add(document["run"])
    if len(runs) > 1:
        raise ValueError(
            f"its times are of different runs ({', '.join(sorted(runs))}); a goal is a ratio of "
            "times of one run, measured side by side"
        )

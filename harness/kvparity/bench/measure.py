"""Measure cases one after the other, and compare what was measured in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvparity.bench.calls import OURS, Call, Calls
from kvparity.bench.cases import Case
from kvparity.bench.timing import Time, turns

Clock = Callable[[Sequence[Call]], Time]
"""Calls that differ in their inputs alone -> the time of one."""


@dataclass(frozen=True)
class Measured:
    """One case: times by way, and why a way could not be timed."""

    case: Case
    times: Mapping[str, Time]
    cannot: Mapping[str, str]
    left_out: str = ""

    def json(self) -> dict[str, Any]:
        """For the document."""
        return {
            **self.case.json(),
            "times": {name: time.json() for name, time in self.times.items()},
            "cannot": dict(self.cannot),
            "left_out": self.left_out,
        }


def measure(case: Case, make: Callable[[], Calls], clock: Clock, *, free: int) -> Measured:
    """Time every way of a case, each on the same rotating inputs.

    ``free``: bytes that the device has. A way of others that fails is told in ``cannot``; ours is
    raised.
    """
    count = turns(case.bytes)
    while count > 2 and count * case.bytes > free // 2:
        count -= 1
    if count * case.bytes > free:
        need = f"needs {count * case.bytes} bytes, {free} are free"
        return Measured(case, {}, {}, need)
    sets = [make() for _ in range(count)]
    times: dict[str, Time] = {}
    cannot: dict[str, str] = {}
    for name in sets[0]:
        try:
            times[name] = clock([each[name] for each in sets])
        except (RuntimeError, ValueError) as error:
            if name == OURS:
                raise
            cannot[name] = str(error).splitlines()[0][:200]
    return Measured(case, times, cannot)


def ratio(ours: Time, other: Time) -> float:
    """How many times as long ours takes.

    Raises:
        ValueError: they were measured in different runs; machines differ from run to run.
    """
    if ours.run != other.run:
        raise ValueError(
            f"run {ours.run} and run {other.run} are different runs; expected times of one run, "
            "measured side by side"
        )
    return ours.ms / other.ms


def price(found: Measured) -> tuple[str, float] | None:
    """(the fastest other way, how many times as long ours takes), or None without one."""
    others = {name: time for name, time in found.times.items() if name != OURS}
    if OURS not in found.times or not others:
        return None
    fastest = min(others, key=lambda name: others[name].ms)
    return fastest, ratio(found.times[OURS], others[fastest])


def read(document: Mapping[str, Any]) -> list[Measured]:
    """The cases of a saved document.

    Raises:
        ValueError: it is not one.
    """
    try:
        return [
            Measured(
                Case(each["what"], tuple(each["sizes"].items()), each["bytes"], each["flops"]),
                {name: Time(**time) for name, time in each["times"].items()},
                each["cannot"],
                each["left_out"],
            )
            for each in document["cases"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no document of kvparity bench: {error!r}") from error

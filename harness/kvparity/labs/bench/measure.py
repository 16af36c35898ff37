"""Measure cases one after the other, and compare what was measured in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kvparity.labs.bench.calls import OURS, Call, Calls, is_ours
from kvparity.labs.bench.cases import TimedCase
from kvparity.labs.bench.document import BenchDocument, CaseJson
from kvparity.labs.bench.timing import Ready, Replay, Time, calls_in_a_graph, turns

AGREES = 0.1
"""The most that a way may differ from ours, as a share of its size: bfloat16 through a whole model
stays well below, another mask or another head does not."""


class Clock(Protocol):
    """What makes ways ready and times them, as ``kvparity.labs.bench.timing.Cuda`` does."""

    def prepare(self, calls: Sequence[Call], count: int) -> Ready:
        """``count`` calls, those given in turn, as one replay."""
        ...

    def times(self, replays: Mapping[str, Replay], calls: int) -> Mapping[str, Time]:
        """The time of one call of each way; a replay makes ``calls`` of them."""
        ...


@dataclass(frozen=True)
class CaseTimes:
    """One case: times by way, and why a way could not be timed."""

    case: TimedCase
    times: Mapping[str, Time]
    cannot: Mapping[str, str]
    left_out: str = ""

    def json(self) -> CaseJson:
        """For the document."""
        return {
            "what": self.case.what,
            "sizes": dict(self.case.sizes),
            "bytes": self.case.bytes,
            "flops": self.case.flops,
            "times": {name: time.json() for name, time in self.times.items()},
            "cannot": dict(self.cannot),
            "left_out": self.left_out,
        }


def measure(case: TimedCase, make: Callable[[], Calls], clock: Clock, *, free: int) -> CaseTimes:
    """Time all ways of a case in turn, each on the same rotating inputs.

    ``free``: bytes that the device has. A way that fails, or computes something else than ours, is
    listed in ``cannot``; a failure of ours is raised.
    """
    count = turns(case.bytes)
    while count > 2 and count * case.bytes > free // 2:
        count -= 1
    if count * case.bytes > free:
        need = f"needs {count * case.bytes} bytes, {free} are free"
        return CaseTimes(case, {}, {}, need)
    try:
        sets = [make() for _ in range(count)]
    except torch.cuda.OutOfMemoryError as error:
        return CaseTimes(case, {}, {}, f"out of memory: {_first_line(error)}")
    in_graph = calls_in_a_graph(case.bytes, case.flops, count)
    replays: dict[str, Replay] = {}
    cannot: dict[str, str] = {}
    expected: Tensor | None = None
    for name in sets[0]:
        try:
            ready = clock.prepare([each[name] for each in sets], in_graph)
        except Exception as error:  # whatever another library raises belongs to its way alone
            if name == OURS:
                raise
            cannot[name] = _first_line(error)
            continue
        expected = ready.result if expected is None else expected
        if (found := distance(ready.result, expected)) <= AGREES:
            replays[name] = ready.replay
        else:
            cannot[name] = f"its result differs from ours by {found:.2g} of its size"
    return CaseTimes(case, dict(clock.times(replays, in_graph)), cannot)


def distance(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference as a share of the norm of what was expected."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.float(), expected.float()
    return float((a - b).norm() / b.norm())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


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


def price(found: CaseTimes, among: tuple[str, ...] = ("",)) -> tuple[str, float] | None:
    """(the fastest other way, how many times as long ours takes), or None without one.

    ``among``: what the names of the others begin with. Variants of ours are no others.
    """
    others = {
        name: time
        for name, time in found.times.items()
        if not is_ours(name) and name.startswith(among)
    }
    return _fastest(found, others)


def split_price(found: CaseTimes) -> tuple[str, float] | None:
    """(our fastest split, how many times as long ours takes): what following the batch would give.

    None where no other split was timed. The fastest may be ours itself.
    """
    splits = {name: time for name, time in found.times.items() if name.startswith(SPLIT)}
    return _fastest(found, {OURS: found.times[OURS], **splits}) if splits else None


SPLIT = f"{OURS} split "


def _fastest(found: CaseTimes, others: Mapping[str, Time]) -> tuple[str, float] | None:
    if OURS not in found.times or not others:
        return None
    fastest = min(others, key=lambda name: others[name].ms)
    return fastest, ratio(found.times[OURS], others[fastest])


def read(document: BenchDocument) -> list[CaseTimes]:
    """The cases of a saved document.

    Raises:
        ValueError: it is not one.
    """
    try:
        return [
            CaseTimes(
                TimedCase(each["what"], tuple(each["sizes"].items()), each["bytes"], each["flops"]),
                {name: Time(**time) for name, time in each["times"].items()},
                each["cannot"],
                each["left_out"],
            )
            for each in document["cases"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no document of kvparity bench: {error!r}") from error

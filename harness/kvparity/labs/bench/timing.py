"""Times on a CUDA device, of the device and not of Python.

What is done against the usual mistakes:

- A way is captured in one graph that holds many calls, at least about a millisecond of them: the
  launch of a graph costs some microseconds, and events tell half of one.
- The calls of a graph rotate over inputs that together are larger than any cache, and a graph
  begins with the inputs that were used longest ago.
- The ways of a case take turns, in another order in each round: what a device loses to heat or
  power meets all of them. Medians of rounds are compared, with their quarter points.
- Before the rounds that count, others keep the device busy, and nothing waits in between: clocks
  are up, and the queue never runs empty between an event and what it stands before.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.labs.bench.document import CopyJson, TimeJson

ROTATED_BYTES = 512 << 20  # of inputs in turn: more than any cache holds
REPLAY_MS = 1.0  # of work in a graph, on a device that is as fast as none is
FASTEST = (8e9, 2.5e12)  # bytes and operations in a millisecond of such a device
MOST_CALLS = 256  # in a graph
WARM_MS = 50.0
BUDGET_MS = 1500.0  # of rounds for one case; fewer rounds than the least are never made
ROUNDS = (8, 40)

Replay = Callable[[], object]
Stamp = Callable[[Replay], Callable[[], float]]
"""Runs a replay; the result, asked later, tells how many milliseconds it took."""


@dataclass(frozen=True)
class Time:
    """Milliseconds of one call: median and quarter points. ``run``: what it was measured in."""

    ms: float
    quarter: float
    three_quarters: float
    run: str

    @property
    def spread(self) -> float:
        """The distance of the quarter points as a share of the median."""
        return (self.three_quarters - self.quarter) / self.ms

    def json(self) -> TimeJson:
        """For the document."""
        return {
            "ms": self.ms,
            "quarter": self.quarter,
            "three_quarters": self.three_quarters,
            "run": self.run,
        }


@dataclass(frozen=True)
class Ready:
    """A way that can be timed: all its calls in one replay, and the first call's result."""

    replay: Replay
    result: Tensor


def turns(size: int) -> int:
    """How many sets of inputs of ``size`` bytes are used in turn: one that no cache holds is."""
    return max(1, min(64, -(-ROTATED_BYTES // size)))


def calls_in_a_graph(size: int, flops: int, sets: int) -> int:
    """Calls of so many bytes and operations that make ``REPLAY_MS``, in whole turns of the sets."""
    floor = max(size / FASTEST[0], flops / FASTEST[1])
    wanted = min(MOST_CALLS, math.ceil(REPLAY_MS / floor))
    return sets * max(1, -(-wanted // sets))


def interleaved(
    replays: Mapping[str, Replay], rounds: int, stamp: Stamp, seed: int = 0
) -> dict[str, list[Callable[[], float]]]:
    """Readings of every way: one in each round, and each round in an order of its own."""
    readings: dict[str, list[Callable[[], float]]] = {name: [] for name in replays}
    order, shuffled = list(replays), random.Random(seed)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            readings[name].append(stamp(replays[name]))
    return readings


def rounds_for(round_ms: float) -> tuple[int, int]:
    """(rounds to warm up, rounds that count) for rounds of so many milliseconds."""
    least, most = ROUNDS
    warm = min(most, math.ceil(WARM_MS / round_ms))
    return warm, max(least, min(most, int(BUDGET_MS / round_ms)))


def timed(replays: Mapping[str, Replay], calls: int, run: str, stamp: Stamp) -> dict[str, Time]:
    """The time of one of the ``calls`` in each replay, for every way."""
    interleaved(replays, 1, stamp)  # the first launch of a graph brings it to the device
    first = interleaved(replays, 1, stamp)
    once = sum(reading() for readings in first.values() for reading in readings)
    warm, counted = rounds_for(once)
    interleaved(replays, warm, stamp)
    readings = interleaved(replays, counted, stamp, seed=1)
    return {name: summary([ms() / calls for ms in each], run) for name, each in readings.items()}


def summary(milliseconds: Sequence[float], run: str) -> Time:
    """Median and quarter points of single measurements."""
    low, middle, high = (round(x, 6) for x in statistics.quantiles(milliseconds, n=4))
    return Time(middle, low, high, run)


class Cuda:
    """The clock of the current CUDA device, for one run."""

    def __init__(self, run: str) -> None:
        self.run = run

    def prepare(self, calls: Sequence[Callable[[], Tensor]], count: int) -> Ready:
        """``count`` calls captured, those given in turn, after each has run on a side stream.

        Twice: the first time compiles, plans and loads, the second is as the capture will be.
        Raises ``ValueError`` if a result is not finite, and torch's ``RuntimeError`` if a call
        waits for the device, which a capture that has begun would not survive.
        """
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # of torch
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            result = calls[0]()
            for call in calls:
                call()
                with _no_waiting():
                    again = call()
                if not bool(again.isfinite().all()):
                    raise ValueError("the result is not finite")
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                calls[i % len(calls)]()
        return Ready(graph.replay, result)

    def times(self, replays: Mapping[str, Replay], calls: int) -> dict[str, Time]:
        """The time of one call of each way; a replay makes ``calls`` of them."""
        return timed(replays, calls, self.run, _stamp)


@contextmanager
def quiet() -> Iterator[None]:
    """What is in memory now is not looked at again: torch may collect before every capture."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Whatever waits for the device inside is an error; a failed capture could spoil later ones."""
    with warnings.catch_warnings():  # that it does not know of every operation that waits
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _stamp(replay: Replay) -> Callable[[], float]:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call] # of torch
    start.record()
    replay()
    stop.record()

    def reading() -> float:
        stop.synchronize()
        return float(start.elapsed_time(stop))

    return reading


def copy_bandwidth(clock: Cuda) -> CopyJson:
    """Bytes read and written each second by a plain copy, ten in a row between two buffers."""
    free, _ = torch.cuda.mem_get_info()
    size = min(1 << 30, free // 8)
    pairs = [[torch.ones(size, dtype=torch.uint8, device="cuda") for _ in "ab"] for _ in range(2)]

    def replay() -> None:
        for i in range(10):
            a, b = pairs[i % 2]
            b.copy_(a)

    found = clock.times({"copy": replay}, 10)["copy"]
    rate = round(2 * size / found.ms / 1e6, 1)
    return {
        "bytes": size,
        "ms": found.ms,
        "quarter": found.quarter,
        "three_quarters": found.three_quarters,
        "run": found.run,
        "gb_per_s": rate,
    }


def both(before: CopyJson, after: CopyJson) -> CopyJson:
    """The faster of two copies, and both rates: what the device lost while cases were timed."""
    found = max(before, after, key=lambda each: each["gb_per_s"]).copy()
    found["before"], found["after"] = before["gb_per_s"], after["gb_per_s"]
    return found

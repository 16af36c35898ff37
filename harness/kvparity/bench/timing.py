"""Times on a CUDA device: each call captured in a graph, so that the device is timed, not Python.

Inputs rotate, so that no call finds its data in a cache; the median of many replays is told with
its quarter points.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

ROTATED_BYTES = 512 << 20  # of inputs in turn: more than any cache holds
REPEATS = 40


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

    def json(self) -> dict[str, Any]:
        """For the document."""
        return asdict(self)


def turns(size: int) -> int:
    """How many sets of inputs of ``size`` bytes are used in turn."""
    return max(2, min(64, -(-ROTATED_BYTES // size)))


def graph_of(call: Callable[[], Tensor]) -> torch.cuda.CUDAGraph:
    """``call`` captured after it ran twice. Raises ``ValueError`` if its result is not finite."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # of torch
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            out = call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    if not bool(out.isfinite().all()):
        raise ValueError("the result is not finite")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def time_calls(calls: Sequence[Callable[[], Tensor]], run: str) -> Time:
    """The time of one of ``calls``, which differ in their inputs alone."""
    graphs = [graph_of(call) for call in calls]
    return time_of([graph.replay for graph in graphs], run)


def time_of(replays: Sequence[Callable[[], Any]], run: str) -> Time:
    """The time of one replay."""
    for replay in replays:
        replay()
    torch.cuda.synchronize()
    events = []
    for i in range(REPEATS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call] # of torch
        start.record()
        replays[i % len(replays)]()
        stop.record()
        events.append((start, stop))
    torch.cuda.synchronize()
    return summary([a.elapsed_time(b) for a, b in events], run)


def summary(milliseconds: Sequence[float], run: str) -> Time:
    """Median and quarter points of single measurements."""
    low, middle, high = (round(x, 5) for x in statistics.quantiles(milliseconds, n=4))
    return Time(middle, low, high, run)


def copy_bandwidth(run: str) -> dict[str, Any]:
    """Bytes read and written each second by a plain copy."""
    free, _ = torch.cuda.mem_get_info()
    size = min(1 << 30, free // 8)
    pairs = [[torch.ones(size, dtype=torch.uint8, device="cuda") for _ in "ab"] for _ in range(2)]
    found = time_of([lambda a=a, b=b: b.copy_(a) for a, b in pairs], run)  # type: ignore[misc] # defaults
    return {"bytes": size, **found.json(), "gb_per_s": round(2 * size / found.ms / 1e6, 1)}

"""Several ways to do one thing, timed in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence


def in_turns(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, run alternately after one warm-up."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, spent in zip(runs, times, strict=True):
            begin = time.perf_counter()
            run()
            if number:
                spent.append(time.perf_counter() - begin)
    return [statistics.median(each) for each in times]

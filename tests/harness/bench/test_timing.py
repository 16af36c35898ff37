"""How times are taken: in turn, many calls at once; with a stand-in for the device."""

from __future__ import annotations

from collections import Counter

import pytest

from kvparity.bench import timing
from kvparity.bench.cases import SHAPES, cases
from kvparity.bench.timing import (
    MOST_CALLS,
    Time,
    both,
    calls_in_a_graph,
    copy_bandwidth,
    interleaved,
    rounds_for,
    summary,
    timed,
    turns,
)


class Device:
    """A stand-in that gets slower with every millisecond of work, as a hot one does."""

    def __init__(self, slower: float = 0.0) -> None:
        self.now, self.slower, self.order = 0.0, slower, []

    def way(self, name, ms):
        def replay():
            self.order.append(name)
            self.now += ms * (1 + self.slower * self.now)

        return replay

    def stamp(self, replay):
        before = self.now
        replay()
        took = self.now - before
        return lambda: took


def test_summaries_are_quarter_points():
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0], "a") == Time(3.0, 1.5, 4.5, "a")


def test_inputs_rotate_unless_no_cache_holds_one_set():
    assert [turns(1 << 20), turns(256 << 20), turns(1 << 40)] == [64, 2, 1]


def test_a_graph_holds_a_millisecond_of_whole_turns():
    assert calls_in_a_graph(4 << 20, 0, 64) == MOST_CALLS  # half a microsecond each
    assert calls_in_a_graph(100 << 20, 0, 6) == 78  # 13 microseconds each: 77 and one more
    assert calls_in_a_graph(1 << 10, 10**13, 3) == 3  # four milliseconds each, all inputs once
    for case in cases(SHAPES["qwen3-8b"]):
        sets = turns(case.bytes)
        count = calls_in_a_graph(case.bytes, case.flops, sets)
        assert count % sets == 0
        assert 1 <= count < MOST_CALLS + sets
        # At 4 TB/s or 1 PFLOP/s, more than a graph's launch by far, or as many as are captured.
        ms = count * max(case.bytes / 4e9, case.flops / 1e12)
        assert ms >= 1.0 or count >= MOST_CALLS, case.name


def test_ways_take_turns_in_changing_order():
    device = Device()
    ways = {name: device.way(name, 1.0) for name in "abc"}
    readings = interleaved(ways, 20, device.stamp)
    assert {name: len(each) for name, each in readings.items()} == dict.fromkeys("abc", 20)
    rounds = [tuple(device.order[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(each) == list("abc") for each in rounds)
    assert len(set(rounds)) >= 4
    assert len(Counter(each[0] for each in rounds)) == 3


def test_a_device_that_slows_down_favours_nobody():
    def ways(device):
        return {name: device.way(name, 1.0) for name in "ab"}

    device = Device(slower=0.01)
    times = timed(ways(device), 1, "a", device.stamp)
    assert times["a"].ms / times["b"].ms == pytest.approx(1, abs=0.05)
    # One after the other, the second would look slower by what the first has heated.
    device = Device(slower=0.01)
    alone = [timed({name: way}, 1, "a", device.stamp)[name] for name, way in ways(device).items()]
    assert alone[1].ms / alone[0].ms > 1.3


def test_a_time_is_of_one_call_and_rounds_follow_the_work():
    device = Device()
    times = timed({"a": device.way("a", 2.0)}, 4, "x", device.stamp)
    assert times == {"a": Time(0.5, 0.5, 0.5, "x")}
    assert rounds_for(1.0) == (40, 40)
    assert rounds_for(100.0) == (1, 15)
    assert rounds_for(1e4) == (1, 8)


def test_the_faster_copy_counts_and_both_are_told():
    fast, slow = ({"gb_per_s": rate, "run": "a"} for rate in (4300.0, 4100.0))
    for before, after in ((fast, slow), (slow, fast)):
        found = both(before, after)
        assert found["gb_per_s"] == 4300.0
        assert (found["before"], found["after"]) == (before["gb_per_s"], after["gb_per_s"])


def test_a_copy_reads_and_writes(monkeypatch):
    real = timing.torch.ones
    monkeypatch.setattr(
        timing.torch, "ones", lambda n, dtype, device: real(n, dtype=dtype, device="cpu")
    )
    monkeypatch.setattr(timing.torch.cuda, "mem_get_info", lambda: (8 * 1000, 0))

    class Clock:
        def times(self, replays, calls):
            replays["copy"]()
            assert calls == 10
            return {"copy": Time(1.0, 1.0, 1.0, "a")}

    found = copy_bandwidth(Clock())
    assert (found["bytes"], found["run"], found["gb_per_s"]) == (1000, "a", 0.0)

"""How times are taken: in turn, many calls at once; with a stand-in for the device."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch

from kvparity.labs.bench import timing
from kvparity.labs.bench.cases import SHAPES, cases
from kvparity.labs.bench.timing import (
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


class Torch:
    """The parts of torch.cuda that captures need: notes in which state each call is made."""

    def __init__(self, monkeypatch) -> None:
        self.state, self.calls, self.replayed = "eager", [], 0
        for name in ("Stream", "current_stream"):
            monkeypatch.setattr(torch.cuda, name, lambda: self)
        monkeypatch.setattr(torch.cuda, "stream", lambda side: nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self.capturing)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.debug)

    def wait_stream(self, other):
        pass

    def debug(self, mode):
        self.state = {"error": "no waiting", "default": "eager"}[mode]

    @contextmanager
    def capturing(self, graph):
        assert graph is self
        self.state = "captured"
        yield
        self.state = "eager"

    def replay(self):
        self.replayed += 1

    def way(self, name, value=1.0, waits=False):
        def call():
            self.calls.append((self.state, name))
            if waits and self.state == "no waiting":
                raise RuntimeError("called a synchronizing CUDA operation")
            return torch.tensor(value)

        return call


def test_calls_are_warm_before_they_are_captured_in_turn(monkeypatch):
    cuda = Torch(monkeypatch)
    ready = timing.Cuda("a").prepare([cuda.way("a", 2.0), cuda.way("b")], 4)
    warm = [
        ("eager", "a"),
        ("eager", "a"),
        ("no waiting", "a"),
        ("eager", "b"),
        ("no waiting", "b"),
    ]
    assert cuda.calls == warm + [("captured", name) for name in "abab"]
    assert float(ready.result) == 2.0
    ready.replay()
    assert cuda.replayed == 1


@pytest.mark.parametrize(
    ("broken", "words"), [({"value": float("nan")}, "finite"), ({"waits": True}, "synchronizing")]
)
def test_what_cannot_be_captured_is_seen_before(monkeypatch, broken, words):
    cuda = Torch(monkeypatch)
    with pytest.raises((RuntimeError, ValueError), match=words):
        timing.Cuda("a").prepare([cuda.way("a"), cuda.way("b", **broken)], 4)
    assert "captured" not in {state for state, _ in cuda.calls}
    assert cuda.state == "eager"


def test_the_whole_table_takes_less_than_four_minutes_by_calculation():
    """At half the rates of an H200, ours three times as slow; compiling is a minute when cold."""
    seconds = 60.0 + 20.0  # and what starts: CUDA, cuDNN's plans
    for case in cases(SHAPES["qwen3-8b"], free=130 << 30):
        sets = turns(case.bytes)
        count = calls_in_a_graph(case.bytes, case.flops, sets)
        each = max(case.bytes / 2e9, case.flops / 3e11, 0.005)  # ms
        ways = {"decode": 13, "prefill": 6, "chunked": 6, "step": 5}.get(case.what, 2)
        turn = count * each * (ways + 2)
        warm, counted = rounds_for(turn)
        python = 60.0 if case.what == "step" else 0.3  # ms of one call's launches
        drawing = sets * case.bytes / 1e8
        launching = ways * (2 * sets + count) * python
        seconds += ((2 + warm + counted) * turn + launching + drawing) / 1e3
    assert 80 < seconds < 240


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

"""The benchmark's calls, tiny, on the CPU: both ways compute the same; ratios are of one case."""

from __future__ import annotations

import gpu_bench
import pytest
import torch

HEADS = gpu_bench.Heads(query=4, kv=2, dim=16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gpu_bench.decode_calls(2, 20, HEADS, torch.float32, "cpu"),
        lambda: gpu_bench.prefill_calls(20, HEADS, torch.float32, "cpu"),
    ],
    ids=["decode", "prefill"],
)
def test_ours_and_sdpa_compute_the_same(make):
    calls = make()
    assert {"ours", "sdpa"} <= set(calls)
    ours, other = calls["ours"](), calls["sdpa"]()
    assert ours.shape == other.shape
    # Float32 sums of 20 products of numbers of size one.
    assert float((ours - other).abs().max()) < 1e-5


def test_ratios_are_of_what_was_measured():
    times = {"ours": {"ms": 2.0}, "sdpa": {"ms": 3.0}, "sdpa flash": {"ms": 1.0}}
    assert gpu_bench.ratios(times) == {"fastest_sdpa": "sdpa flash", "speed_of_sdpa": 0.5}
    assert gpu_bench.ratios({"ours": {"ms": 2.0}}) == {}
    assert gpu_bench.ratios({"sdpa": {"ms": 2.0}}) == {}


def test_without_a_device_there_are_no_times(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_bench.main() == 2
    assert "no CUDA device" in capsys.readouterr().err

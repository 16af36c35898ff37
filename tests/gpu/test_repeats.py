"""On the device: runs, processes, graphs and lengths give the same bits from the same binaries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import device_cases
import pytest
import torch
from device_cases import (
    DTYPES,
    EDGES,
    ORDER,
    Shape,
    expected_last,
    fingerprints,
    last_rows,
    lay,
    sequence,
    unequal,
    unequal_results,
    whole,
)

from kvparity_kernels import launch
from kvparity_kernels.attention import attend_decode
from kvparity_kernels.keys import KeysValues

pytestmark = pytest.mark.gpu
SHAPE = Shape()
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fifty_runs_give_the_same_bits(dtype):
    data = [sequence(n, SHAPE, dtype, n) for n in EDGES]
    first, longest = last_rows(data, SHAPE), whole(data[-1], SHAPE)
    for _ in range(50):
        assert unequal_results(last_rows(data, SHAPE), first) == 0
        assert unequal_results(whole(data[-1], SHAPE), longest) == 0


def test_processes_and_a_new_compile_cache_give_the_same_bits(tmp_path):
    here = fingerprints("cuda")
    for cache in (None, tmp_path):  # the cache of this process, then an empty one
        paths = [str(ROOT / name) for name in ("harness", "kernels", "contracts")]
        known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, *known])}
        if cache is not None:
            environment["TRITON_CACHE_DIR"] = str(cache)
        done = subprocess.run(
            [sys.executable, device_cases.__file__, "cuda"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == here


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_replayed_graph_has_the_bits_of_a_call(dtype):
    """A batch of 8 with pads (no keys), captured once, replayed over other lengths and data."""
    capacity, batch = 520, 8
    keys = torch.full(
        (2, batch * capacity, SHAPE.kv_heads, SHAPE.dim), float("nan"), dtype=dtype, device="cuda"
    )
    q = torch.zeros(batch, SHAPE.heads, SHAPE.dim, dtype=dtype, device="cuda")
    lens = torch.zeros(batch, dtype=torch.int32, device="cuda")
    starts = torch.arange(batch, device="cuda") * capacity
    kv = KeysValues(keys[0], keys[1], lens, starts=starts)

    def call():
        return attend_decode(q, kv, max_kv=capacity, scale=SHAPE.scale, order=ORDER)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # kernels are compiled and loaded before anything is captured
        call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = call()

    for turn, lengths in enumerate(([1, 63, 64, 65], [255, 256, 257, 513, 3], [513] * 8)):
        data = [sequence(n, SHAPE, dtype, 100 * turn + b) for b, n in enumerate(lengths)]
        keys.fill_(float("nan"))
        lens.zero_()
        for b, (queries, k, v) in enumerate(data):
            keys[0, b * capacity : b * capacity + len(k)] = k
            keys[1, b * capacity : b * capacity + len(v)] = v
            q[b], lens[b] = queries[-1], len(k)
        graph.replay()
        torch.cuda.synchronize()
        n = len(lengths)
        expected = expected_last(data, SHAPE)
        assert unequal_results((out[:n], lse[:n]), expected) == 0, turn
        assert unequal(out[n:], torch.zeros_like(out[n:])) == 0  # a pad sees no key
        assert unequal_results(call(), (out, lse)) == 0


def binaries(kernel) -> int:
    """How many compiled forms of a kernel this process holds."""
    return sum(len(caches[0]) for caches in kernel.function.device_caches.values())


def test_one_binary_serves_every_length():
    from kvparity_kernels.attention import kernels

    one = sequence(300, SHAPE, torch.bfloat16, 9)
    names = ("prefill", "decode_split", "decode_combine")

    def run(n: int) -> None:
        whole((one[0][:n], one[1][:n], one[2][:n]), SHAPE)
        last_rows([(one[0][:n], one[1][:n], one[2][:n])] * (1 + n % 3), SHAPE)

    run(1)
    before = [binaries(getattr(kernels, name)) for name in names]
    assert min(before) >= 1
    with launch.record() as log:
        for n in range(1, 301):
            run(n)
    assert [binaries(getattr(kernels, name)) for name in names] == before
    assert set(log.kernels) == {f"attention.{name}" for name in names}  # each in one form
    # The control: a kernel of another shape is another binary.
    other = Shape(dim=32, group=2)
    whole(sequence(3, other, torch.bfloat16, 1), other)
    assert binaries(kernels.prefill) == before[0] + 1


def test_the_cache_of_a_test_lies_as_it_says():
    data = [sequence(n, SHAPE, torch.float32, n) for n in (1, 40)]
    kv = lay(data, page=16)
    slot = int(kv.block_table[1, 2]) * 16 + 7  # key 39
    assert unequal(kv.k[slot], data[1][1][39]) == 0

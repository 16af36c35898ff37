"""A few times of attention on this device: ours beside PyTorch SDPA, and beside a plain copy.

Every call is captured in a CUDA graph, so that what is timed is the device and not Python. Inputs
rotate, so that no call finds its keys in a cache. A ratio is made of times of one case of one run.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from kvparity.environment import environment
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

HEADS, KV_HEADS, DIM = 32, 8, 128  # of Qwen3-8B and Llama-3-8B
DECODE = (
    (1, 1024),
    (1, 8192),
    (1, 32768),
    (8, 1024),
    (8, 8192),
    (8, 32768),
    (64, 1024),
    (64, 8192),
)
PREFILL = (512, 4096, 16384)
ROTATED_BYTES = 512 << 20  # of inputs in turn: more than any cache holds
REPEATS = 40
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
ORDER = ReductionOrder()
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Heads:
    """Query heads, key heads, head dimension."""

    query: int = HEADS
    kv: int = KV_HEADS
    dim: int = DIM


def decode_calls(
    batch: int, keys: int, heads: Heads, dtype: torch.dtype, device: str
) -> dict[str, Call]:
    """One query against ``keys`` keys, for each of ``batch`` sequences; all read one cache."""
    q = torch.randn(batch, heads.query, heads.dim, device=device).to(dtype)
    k, v = (torch.randn(batch, keys, heads.kv, heads.dim, dtype=dtype, device=device) for _ in "kv")
    kv = KeysValues(
        k.flatten(0, 1),
        v.flatten(0, 1),
        torch.full((batch,), keys, dtype=torch.int32, device=device),
        starts=torch.arange(batch, device=device) * keys,
    )
    scale = heads.dim**-0.5

    def ours() -> Tensor:
        return attend_decode(q, kv, max_kv=keys, scale=scale, order=ORDER)[0]

    views = (q[:, :, None], k.transpose(1, 2), v.transpose(1, 2))
    return {"ours": ours, **_sdpa(views, scale, causal=False, to=lambda x: x[:, :, 0])}


def prefill_calls(rows: int, heads: Heads, dtype: torch.dtype, device: str) -> dict[str, Call]:
    """Causal attention over one prompt."""
    q = torch.randn(rows, heads.query, heads.dim, device=device).to(dtype)
    k, v = (torch.randn(rows, heads.kv, heads.dim, device=device).to(dtype) for _ in "kv")
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    length = torch.full((1,), rows, dtype=torch.int32, device=device)
    kv = KeysValues(k, v, length, starts=zero)
    scale = heads.dim**-0.5

    def ours() -> Tensor:
        return attend_prefill(
            q, kv, q_starts=zero.int(), q_lens=length, max_q=rows, scale=scale, order=ORDER
        )[0]

    views = tuple(x.transpose(0, 1)[None] for x in (q, k, v))
    return {"ours": ours, **_sdpa(views, scale, causal=True, to=lambda x: x[0].transpose(0, 1))}


def _sdpa(
    views: Sequence[Tensor], scale: float, *, causal: bool, to: Callable[[Tensor], Tensor]
) -> dict[str, Call]:
    q, k, v = views

    def call() -> Tensor:
        return to(
            scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=True)
        )

    def with_backend(backend: SDPBackend) -> Call:
        def chosen() -> Tensor:
            with sdpa_kernel(backend):
                return call()

        return chosen

    return {"sdpa": call, **{f"sdpa {n}": with_backend(b) for n, b in BACKENDS.items()}}


def graph_of(call: Call) -> torch.cuda.CUDAGraph:
    """``call`` captured after it ran twice."""
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


def time_of(replays: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of one replay: median, and the quarter points as the spread."""
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
    low, middle, high = statistics.quantiles([a.elapsed_time(b) for a, b in events], n=4)
    return {
        "ms": round(middle, 5),
        "ms_quarter": round(low, 5),
        "ms_three_quarters": round(high, 5),
    }


def measure(make: Callable[[], dict[str, Call]], size: int) -> dict[str, Any]:
    """Times of every way of one case. ``size``: bytes of one set of inputs."""
    turns = max(2, min(64, -(-ROTATED_BYTES // size)))
    sets = [make() for _ in range(turns)]
    found: dict[str, Any] = {"turns": turns, "times": {}, "cannot": {}}
    for name in sets[0]:
        try:
            graphs = [graph_of(each[name]) for each in sets]
        except (RuntimeError, ValueError) as error:
            if name == "ours":
                raise
            found["cannot"][name] = str(error).splitlines()[0][:200]
            torch.cuda.synchronize()
            continue
        found["times"][name] = time_of([graph.replay for graph in graphs])
        del graphs
    return found | ratios(found["times"])


def ratios(times: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """How ours compares with the fastest SDPA of the same case; nothing where there is none."""
    others = {name: each["ms"] for name, each in times.items() if name != "ours"}
    if "ours" not in times or not others:
        return {}
    fastest = min(others, key=lambda name: others[name])
    return {
        "fastest_sdpa": fastest,
        "speed_of_sdpa": round(others[fastest] / times["ours"]["ms"], 4),
    }


def copy_bandwidth() -> dict[str, Any]:
    """Bytes read and written each second by a plain copy."""
    free, _ = torch.cuda.mem_get_info()
    size = min(1 << 30, free // 8)
    pairs = [[torch.ones(size, dtype=torch.uint8, device="cuda") for _ in "ab"] for _ in range(2)]
    found = time_of([lambda a=a, b=b: b.copy_(a) for a, b in pairs])  # type: ignore[misc] # defaults
    return {"bytes": size, **found, "gb_per_s": round(2 * size / found["ms"] / 1e6, 1)}


def main() -> int:
    """Print one JSON document."""
    if not torch.cuda.is_available():
        print("bench: there is no CUDA device here", file=sys.stderr)
        return 2
    heads, dtype = Heads(), torch.bfloat16
    copy = copy_bandwidth()
    cases = []
    torch.manual_seed(0)
    for batch, keys in DECODE:
        size = 2 * batch * keys * heads.kv * heads.dim * dtype.itemsize
        free, _ = torch.cuda.mem_get_info()
        case: dict[str, Any] = {"what": "decode", "batch": batch, "keys": keys, "bytes": size}
        if 4 * size > free:
            cases.append(case | {"left_out": f"needs {4 * size} bytes, {free} are free"})
            continue
        case |= measure(lambda b=batch, n=keys: decode_calls(b, n, heads, dtype, "cuda"), size)  # type: ignore[misc] # defaults
        speed = size / case["times"]["ours"]["ms"] / 1e6
        cases.append(
            case
            | {"gb_per_s": round(speed, 1), "of_copy_bandwidth": round(speed / copy["gb_per_s"], 4)}
        )
        torch.cuda.empty_cache()
    for rows in PREFILL:
        size = 2 * rows * (heads.query + heads.kv) * heads.dim * dtype.itemsize
        case = {"what": "prefill", "rows": rows, "bytes": size}
        case |= measure(lambda n=rows: prefill_calls(n, heads, dtype, "cuda"), size)  # type: ignore[misc] # defaults
        flops = 4 * heads.query * heads.dim * rows * (rows + 1) / 2
        cases.append(case | {"tflop_per_s": round(flops / case["times"]["ours"]["ms"] / 1e9, 1)})
        torch.cuda.empty_cache()
    document = {
        "verdict": "measured",
        "heads": [heads.query, heads.kv, heads.dim],
        "format": "bfloat16",
        "copy": copy,
        "cases": cases,
        "environment": environment(torch.device("cuda")),
    }
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The reduction order refuses what no kernel can run; the mode is chosen once and in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from kvparity_kernels import runtime
from kvparity_kernels.order import ReductionOrder

KERNELS = Path(__file__).parents[2] / "kernels"


def test_the_default_is_valid_and_frozen() -> None:
    order = ReductionOrder()
    assert (order.split, order.tile, order.block_m, order.num_warps, order.linear_k) == (
        256,
        64,
        64,
        4,
        32,
    )
    assert order == ReductionOrder(split=256)
    with pytest.raises(FrozenInstanceError):
        order.split = 128  # type: ignore[misc]  # the test is that it cannot


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"split": 32, "tile": 64}, "split is 32, not a multiple of tile 64"),
        ({"split": 96, "tile": 32}, "split is 96; it must be a power of two"),
        ({"tile": 8}, "tile is 8; a tensor core"),
        ({"block_m": 8}, "block_m is 8"),
        ({"linear_k": 8}, "linear_k is 8"),
        ({"num_warps": 3}, "num_warps is 3"),
        ({"num_warps": 32}, "num_warps is 32; at most 16"),
        ({"split": 0}, "split is 0"),
        ({"split": 256.0}, "split is 256.0"),
        ({"tile": True}, "tile is True"),
    ],
)
def test_a_wrong_order_is_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ReductionOrder(**wrong)


def test_this_process_interprets() -> None:
    assert runtime.mode() == "interpreter"
    runtime.select("cpu")  # what it is already
    import kvparity_kernels.launch as launch

    assert launch.MODE == "interpreter"
    with pytest.raises(RuntimeError, match="already loaded interpreted kernels"):
        runtime.select("cuda")
    with pytest.raises(ValueError, match="use 'cpu' or 'cuda'"):
        runtime.select("tpu")


@pytest.fixture(scope="module")
def fresh() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported torch alone, and runs each line of code in a copy of itself."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(KERNELS), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"OMP_NUM_THREADS": "1"}  # a process of one thread can be copied
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COPIES],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


COPIES = """
import json, os, sys, traceback
import torch
assert not any(name.startswith(("triton", "kvparity")) for name in sys.modules)
for line in sys.stdin:
    code, interpret = json.loads(line)
    if not os.fork():
        said = ""
        if interpret is not None:
            os.environ["TRITON_INTERPRET"] = interpret
        try:
            exec(code, {})
        except BaseException:
            said = traceback.format_exc()
        print(json.dumps(said), flush=True)
        os._exit(0)
    os.wait()
"""
TRY = """
import torch
q = torch.ones(1, 1, 16)
n = torch.tensor([1], dtype=torch.int32)
from kvparity_kernels.attention import decode
out, _ = decode(q, q[None], q[None], kv_lens=n, scale=1.0)
assert torch.equal(out, q)
"""


@pytest.mark.parametrize(
    ("code", "interpret", "says"),
    [
        # Whoever imported Triton first, and without a choice, there being no GPU.
        ("import triton.language" + TRY, None, ""),
        ("from kvparity_kernels import runtime\nruntime.select('cpu')" + TRY, None, ""),
        (TRY, "0", "Q is on cpu, but this process runs compiled kernels"),
        (
            "from kvparity_kernels import runtime\nruntime.select('cpu')",
            "0",
            "TRITON_INTERPRET=0 asks for compiled kernels",
        ),
        (
            "from kvparity_kernels import runtime\nruntime.select('cuda:1')",
            "1",
            "TRITON_INTERPRET=1 asks for interpreted kernels",
        ),
    ],
    ids=["triton first", "selected", "explicit", "cpu against 0", "cuda against 1"],
)
def test_choosing_the_mode(
    fresh: subprocess.Popen[str], code: str, interpret: str | None, says: str
) -> None:
    assert fresh.stdin is not None
    assert fresh.stdout is not None
    print(json.dumps([code, interpret]), file=fresh.stdin, flush=True)
    said = json.loads(fresh.stdout.readline())
    assert says in said if says else not said, said

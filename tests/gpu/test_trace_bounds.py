"""The bounds of a trace on a device: compiled kernels stay within them, a missing key does not."""

from __future__ import annotations

import pytest
import torch

from kvparity.relations.trace.weights import Weights, weigh
from kvparity.subjects.events import Attended
from kvparity_kernels.attention import decode
from kvparity_kernels.order import ReductionOrder

pytestmark = pytest.mark.gpu
ORDER = ReductionOrder()
HEADS, KV_HEADS, DIM = 8, 2, 64


def weighed(keys: int, dtype: torch.dtype, gone: int | None, order: bool) -> Weights:
    """A row over ``keys`` keys that are told, of which the kernel does not get key ``gone``."""
    random = torch.Generator("cuda").manual_seed(keys)

    def draw(rows: int, heads: int) -> torch.Tensor:
        return torch.randn(rows, heads, DIM, generator=random, device="cuda").to(dtype)

    q, k, v = draw(1, HEADS), draw(keys, KV_HEADS), draw(keys, KV_HEADS)
    kept = [i for i in range(keys) if i != gone]
    lens = torch.tensor([len(kept)], dtype=torch.int32, device="cuda")
    scale = DIM**-0.5
    out, lse = decode(q, k[None, kept], v[None, kept], kv_lens=lens, scale=scale, order=ORDER)
    event = Attended(
        0, 0, keys - 1, keys - 1, keys, 0, q[0], k, v, out[0], lse[0], scale, decode=True
    )
    found = weigh(event, (ORDER.split, ORDER.tile) if order else None)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("keys", [1, 2, 65, 256, 257, 2000, 20000])
def test_compiled_kernels_stay_within_the_bounds(keys: int, dtype: torch.dtype) -> None:
    found = weighed(keys, dtype, None, order=True)
    assert found.deviation <= found.bound
    assert found.out_ratio <= 1
    assert not found.uniform
    assert not found.flat


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [2, 65, 2000])
def test_a_missing_key_breaks_them(keys: int, dtype: torch.dtype) -> None:
    for gone in (0, keys - 1):
        found = weighed(keys, dtype, gone, order=True)
        assert found.deviation > found.bound

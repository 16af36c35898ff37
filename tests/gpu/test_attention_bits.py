"""On the device: every path of attention gives the bits of prefill."""

from __future__ import annotations

import pytest
import torch

from kvparity.core.bits import differing
from kvparity_kernels.attention import decode, naive, prefill
from kvparity_kernels.order import ReductionOrder

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
HEADS, KV_HEADS, DIM = 8, 2, 64
LENGTHS = [1, 63, 64, 65, 255, 256, 257, 1025]


def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    source = torch.Generator("cuda").manual_seed(seed)
    return [
        torch.randn(length, heads, DIM, generator=source, device="cuda").to(dtype)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], device="cuda").cumsum(0).int()


def alone(q, k, v, order=None):
    more = {} if order is None else {"order": order}
    ends_q, ends_k = offsets([len(q)]), offsets([len(k)])
    return prefill(q, k, v, cu_seqlens_q=ends_q, cu_seqlens_k=ends_k, scale=DIM**-0.5, **more)


def decode_ragged(cases, capacity, order=None):
    """The last query of each (q, k, v), in one ragged batch over NaN-poisoned caches."""
    more = {} if order is None else {"order": order}
    shape = (len(cases), capacity, KV_HEADS, DIM)
    caches = torch.full((2, *shape), float("nan"), dtype=cases[0][0].dtype, device="cuda")
    for row, (_, k, v) in enumerate(cases):
        caches[0, row, : len(k)], caches[1, row, : len(k)] = k, v
    q = torch.stack([q[-1] for q, _, _ in cases])
    lens = torch.tensor([len(k) for _, k, _ in cases], dtype=torch.int32, device="cuda")
    return decode(q, caches[0], caches[1], kv_lens=lens, scale=DIM**-0.5, **more)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ragged_decode_has_the_bits_of_prefill(dtype):
    data = [draw(n, dtype, n) for n in LENGTHS]
    whole = [alone(*d) for d in data]
    out, lse = decode_ragged(data, capacity=1100)
    for row, (expected_out, expected_lse) in enumerate(whole):
        assert not differing(out[row], expected_out[-1]).any(), LENGTHS[row]
        assert not differing(lse[row], expected_lse[-1]).any(), LENGTHS[row]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chunks_and_packed_batches_have_the_bits_of_prefill(dtype):
    q, k, v = draw(321, dtype, 1)
    out, lse = alone(q, k, v)
    for start, stop in ((0, 1), (1, 8), (8, 200), (200, 321)):
        chunk_out, chunk_lse = alone(q[start:stop], k[:stop], v[:stop])
        assert not differing(chunk_out, out[start:stop]).any()
        assert not differing(chunk_lse, lse[start:stop]).any()
    other = draw(77, dtype, 2)
    packed = [torch.cat([a, b]) for a, b in zip(other, (q, k, v), strict=True)]
    ends = offsets([77, 321])
    both, _ = prefill(*packed, cu_seqlens_q=ends, cu_seqlens_k=ends, scale=DIM**-0.5)
    assert not differing(both[77:], out).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_another_split_in_decode_is_seen(dtype):
    data = [draw(1025, dtype, 3)]
    expected, _ = alone(*data[0])
    out, _ = decode_ragged(data, capacity=1100, order=ReductionOrder(split=128, tile=64))
    assert differing(out[0], expected[-1]).any()


@pytest.mark.parametrize(
    ("dtype", "bound"),
    # Rounding the weights and the result to the dtype: a few units of its 2**-24, 2**-11, 2**-8.
    [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
    ids=str,
)
def test_close_to_float64(dtype, bound):
    q, k, v = draw(257, dtype, 4)
    out, _ = alone(q, k, v)
    expected, _ = naive.attend(q.double(), k.double(), v.double(), scale=DIM**-0.5)
    assert (out.double() - expected).abs().max() < bound

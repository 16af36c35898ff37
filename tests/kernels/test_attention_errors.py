"""Wrong arguments are refused in words, before anything is launched."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvparity_kernels.attention import attend_decode, attend_prefill, decode, prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.launch import record
from kvparity_kernels.order import ReductionOrder


def ints(*values: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


K = torch.zeros(8, 2, 16)
LENS = ints(3, 5)
STARTS = ints(0, 3, dtype=torch.int64)
TABLE = torch.zeros(2, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": K[0]}, r"must both be \[slots, kv_heads, head_dim\]"),
        ({"v": K[:4]}, "must both be"),
        ({"k": K.double(), "v": K.double()}, "float32, float16 or bfloat16"),
        ({"v": K.half()}, "they must agree"),
        ({"k": K.mT.contiguous().mT}, "last dimension of k and v must be contiguous"),
        ({"kv_lens": LENS.long()}, "kv_lens is torch.int64"),
        ({"kv_lens": TABLE[0][:, None]}, "kv_lens is torch.int32 with 2 dimensions"),
        ({"kv_lens": ints(1, 2, 3, 4)[::2]}, "kv_lens must be contiguous"),
        ({"starts": None}, "give either starts"),
        ({"block_table": TABLE, "page": 4}, "give either starts"),
        ({"starts": LENS}, "starts is torch.int32"),
        ({"starts": STARTS[:1]}, r"starts \(1,\) must be \[2\]"),
        ({"page": 4}, "page 0, not 4"),
        ({"starts": None, "block_table": TABLE}, "page positive, not 0"),
        ({"starts": None, "block_table": TABLE[:1], "page": 4}, r"must be \[2, max_pages\]"),
        ({"starts": None, "block_table": TABLE.T.contiguous().T, "page": 4}, "rows of block_table"),
        ({"starts": STARTS.to("meta")}, "starts is on meta, k is on cpu"),
    ],
)
def test_keys_and_values(changes: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"k": K, "v": K, "kv_lens": LENS, "starts": STARTS}
    assert KeysValues(**good).batch == 2
    with pytest.raises(ValueError, match=says):
        KeysValues(**good | changes)


Q = torch.zeros(2, 4, 16)


@pytest.mark.parametrize(
    ("q", "says"),
    [
        (Q[0], r"must be \[rows, heads, head_dim\]"),
        (Q.double(), "q is torch.float64; it must be float32, float16 or bfloat16"),
        (torch.zeros(2, 4, 24), "q has head dimension 24, k has 16"),
        (torch.zeros(2, 3, 16), "3 query heads are not a multiple of 2 key heads"),
        (torch.zeros(2, 16, 4).mT, "last dimension of q must be contiguous"),
        (Q.to("meta"), "q is on meta, k is on cpu"),
        (torch.zeros(3, 4, 16), "3 rows for 2 sequences"),
    ],
)
def test_queries(q: torch.Tensor, says: str) -> None:
    kv = KeysValues(K, K, LENS, starts=STARTS)
    with record() as log, pytest.raises(ValueError, match=says):
        attend_decode(q, kv, max_kv=5, scale=1.0, order=ReductionOrder())
    assert not log.counts


@pytest.mark.parametrize("dim", [8, 257])
def test_head_dimensions(dim: int) -> None:
    k = torch.zeros(8, 2, dim)
    kv = KeysValues(k, k, LENS, starts=STARTS)
    with pytest.raises(ValueError, match=rf"head dimension {dim} is outside 16 \.\. 256"):
        attend_decode(torch.zeros(2, 4, dim), kv, max_kv=5, scale=1.0, order=ReductionOrder())


def test_strides_that_would_change_the_compiled_code() -> None:
    wide = torch.zeros(8, 2, 19)[..., :16]
    kv = KeysValues(wide, wide, LENS, starts=STARTS)
    with pytest.raises(ValueError, match=r"strides \(38, 19, 1\) of k must be multiples of 16"):
        attend_decode(Q, kv, max_kv=5, scale=1.0, order=ReductionOrder())


@pytest.mark.parametrize(
    "wrong", [ints(0, 1, dtype=torch.int64), ints(0), ints(0, 1).to("meta"), TABLE]
)
@pytest.mark.parametrize("name", ["q_starts", "q_lens"])
def test_places_of_queries(name: str, wrong: torch.Tensor) -> None:
    good = {"q_starts": ints(0, 1), "q_lens": ints(1, 1)}
    kv = KeysValues(K, K, LENS, starts=STARTS)
    with pytest.raises(ValueError, match=rf"{name} is .*; expected torch\.int32 \(2,\) on cpu"):
        attend_prefill(Q, kv, **good | {name: wrong}, max_q=1, scale=1.0, order=ReductionOrder())


@pytest.mark.parametrize(
    ("offsets_q", "offsets_k", "says"),
    [
        (ints(0, 2, dtype=torch.int64), ints(0, 8), "cu_seqlens_q is torch.int64"),
        (ints(0, 2), ints(0, 4, 8), "both need one more than there are sequences"),
        (ints(0, 3), ints(0, 8), r"must rise from 0 to the 2 rows of q, found \[0, 3\]"),
        (ints(1, 2), ints(0, 8), "must rise from 0"),
        (ints(0, 2), ints(0, 7), "must rise from 0 to the 8 rows of k"),
        (ints(0, 2, 1, 2), ints(0, 2, 3, 8), "must rise from 0"),
    ],
)
def test_packed_offsets(offsets_q: torch.Tensor, offsets_k: torch.Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        prefill(Q, K, K, cu_seqlens_q=offsets_q, cu_seqlens_k=offsets_k, scale=1.0)


@pytest.mark.parametrize(
    ("k", "v", "lens", "says"),
    [
        (K, K, LENS, r"must both be \[B, capacity"),
        (K[None], K[None], LENS, r"kv_lens is \(2,\) for 1 caches"),
        (
            torch.zeros(2, 8, 2, 16),
            torch.zeros(2, 2, 8, 16).transpose(1, 2),
            LENS,
            "the cache layouts differ",
        ),
        (
            torch.zeros(400).as_strided((2, 4, 2, 16), (136, 32, 16, 1)),
            torch.zeros(2, 4, 2, 16),
            LENS,
            "do not make sequences start at whole slots",
        ),
    ],
)
def test_rectangular_caches(
    k: torch.Tensor, v: torch.Tensor, lens: torch.Tensor, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        decode(Q, k, v, kv_lens=lens, scale=1.0)


def test_empty_batches_are_no_error() -> None:
    none = torch.zeros(0, 8, 2, 16)
    out, lse = decode(Q[:0], none, none, kv_lens=ints(), scale=1.0)
    assert (out.shape, lse.shape) == ((0, 4, 16), (0, 4))
    out, lse = prefill(Q[:0], K[:0], K[:0], cu_seqlens_q=ints(0), cu_seqlens_k=ints(0), scale=1.0)
    assert (out.shape, lse.shape) == ((0, 4, 16), (0, 4))
    full = torch.zeros(2, 0, 2, 16)
    out, lse = decode(Q, full, full, kv_lens=ints(0, 0), scale=1.0)
    assert not out.any()

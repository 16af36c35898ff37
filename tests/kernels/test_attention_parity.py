"""Decode, chunks, batches and pages reduce like one full prefill: the same bits of out and lse."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from kvparity_kernels.keys import KeysValues
from kvparity_kernels.order import ReductionOrder

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_path_has_the_bits_of_full_prefill(lab: SimpleNamespace, dtype: torch.dtype) -> None:
    case = lab.Case(lens=(5, 70, 33), dtype=dtype)
    bad = lab.compare(case, lab.attention)
    assert len(bad) == 6
    assert set(bad.values()) == {0}, bad


@pytest.mark.parametrize(
    ("lens", "order", "heads", "dim"),
    [
        ((31, 32, 33, 1), ReductionOrder(split=32, tile=32, block_m=64), (2, 2), 32),
        ((97, 64), ReductionOrder(split=64, tile=16, block_m=32), (6, 2), 24),
        ((40,), ReductionOrder(split=16, tile=16, block_m=16), (20, 1), 16),  # group > block_m
    ],
    ids=["one tile per split", "odd head dimension", "many heads per key head"],
)
def test_other_orders_and_shapes(
    lab: SimpleNamespace,
    lens: tuple[int, ...],
    order: ReductionOrder,
    heads: tuple[int, int],
    dim: int,
) -> None:
    case = lab.Case(
        lens=lens, order=order, heads=heads[0], kv_heads=heads[1], dim=dim, dtype=torch.bfloat16
    )
    bad = lab.compare(case, lab.attention)
    assert set(bad.values()) == {0}, bad


@pytest.mark.parametrize(
    ("dtype", "cache"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)],
    ids=["wide cache", "narrow cache"],
)
def test_a_cache_of_another_dtype_is_cast_on_load(
    lab: SimpleNamespace, dtype: torch.dtype, cache: torch.dtype
) -> None:
    case = lab.Case(lens=(45,), dtype=dtype, cache=cache)
    assert set(lab.compare(case, lab.attention).values()) == {0}
    q, k, v = case.rows(0)
    offsets = torch.tensor([0, 45], dtype=torch.int32)
    mixed, same = (
        lab.attention.prefill(
            q,
            a,
            b,
            cu_seqlens_q=offsets,
            cu_seqlens_k=offsets,
            scale=case.scale,
            order=case.order,
        )
        for a, b in ((k, v), (k.to(dtype), v.to(dtype)))
    )
    assert lab.differing(mixed[0], same[0]) + lab.differing(mixed[1], same[1]) == 0


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), 3e38, -0.0])
def test_neighbours_and_unused_slots_do_not_matter(lab: SimpleNamespace, strange: float) -> None:
    case = lab.Case(lens=(37, 20))
    q, k, v = case.rows(0)
    alone = lab.prefill(case, [(0, 0, 37)], lab.attention)[0]
    other = torch.full_like(case.rows(1)[0], strange)
    keys = torch.full_like(case.rows(1)[1], strange)
    for page in (0, 8):
        kv = lab.lay([(keys, keys), (k, v)], page, fill=strange)
        out, lse = lab.attention.attend_prefill(
            torch.cat([other, q]),
            kv,
            q_starts=torch.tensor([0, 20], dtype=torch.int32),
            q_lens=torch.tensor([20, 37], dtype=torch.int32),
            max_q=37,
            scale=case.scale,
            order=case.order,
        )
        assert lab.differing(out[20:], alone[0]) + lab.differing(lse[20:], alone[1]) == 0
        out, lse = lab.attention.attend_decode(
            torch.stack([other[0], q[-1]]), kv, max_kv=37, scale=case.scale, order=case.order
        )
        assert lab.differing(out[1], alone[0][-1]) + lab.differing(lse[1], alone[1][-1]) == 0


def test_public_decode_takes_any_cache_strides(lab: SimpleNamespace) -> None:
    case = lab.Case(lens=(40, 9))
    full = [lab.prefill(case, [(s, 0, n)], lab.attention)[0] for s, n in enumerate(case.lens)]
    cache = torch.full((2, 2, 2, 50, 16), float("nan"))  # k/v, batch, heads, slots, dim
    for s, n in enumerate(case.lens):
        _, k, v = case.rows(s)
        cache[0, s, :, :n], cache[1, s, :, :n] = k.transpose(0, 1), v.transpose(0, 1)
    heads_first = cache.transpose(2, 3)
    q = torch.stack([case.rows(s)[0][-1] for s in range(2)])
    for k, v in (heads_first, heads_first.contiguous()):
        out, lse = lab.attention.decode(
            q,
            k,
            v,
            kv_lens=torch.tensor(case.lens, dtype=torch.int32),
            scale=case.scale,
            order=case.order,
        )
        for s in range(2):
            assert lab.differing(out[s], full[s][0][-1]) == 0
            assert lab.differing(lse[s], full[s][1][-1]) == 0


def test_rows_without_keys_and_rows_outside(lab: SimpleNamespace) -> None:
    case = lab.Case(lens=(6, 4))
    q = torch.cat([case.rows(0)[0], case.rows(1)[0]])  # ten rows; rows 0 and 9 belong to nobody
    _, k, v = case.rows(0)
    out, lse = lab.attention.attend_prefill(
        q,
        KeysValues(k, v, torch.tensor([0, 2], dtype=torch.int32), starts=torch.tensor([0, 1])),
        q_starts=torch.tensor([1, 5], dtype=torch.int32),
        q_lens=torch.tensor([3, 4], dtype=torch.int32),
        max_q=4,
        scale=1.0,
        order=case.order,
    )
    assert out[[0, 4, 9]].isnan().all()
    assert lse[[0, 4, 9]].isnan().all()
    empty = [1, 2, 3, 5, 6]  # no keys at all, and rows before the first key
    assert not lab.bits(out[empty]).any()  # +0
    assert (lse[empty] == -math.inf).all()
    assert out[7:9].isfinite().all()
    assert lse[7:9].isfinite().all()
    out, lse = lab.attention.attend_decode(
        q[:1],
        KeysValues(k, v, torch.tensor([0], dtype=torch.int32), starts=torch.tensor([0])),
        max_kv=0,
        scale=1.0,
        order=case.order,
    )
    assert not lab.bits(out).any()
    assert (lse == -math.inf).all()


def test_more_keys_than_the_cache_holds_leave_nan(lab: SimpleNamespace) -> None:
    case = lab.Case(lens=(40, 40))
    q, k, v = case.rows(0)
    lens = torch.tensor([33, 40], dtype=torch.int32)
    for kv in (
        KeysValues(k, v, lens, starts=torch.tensor([0, 8])),  # 48 slots needed, 40 there
        KeysValues(k, v, lens, block_table=torch.zeros(2, 3, dtype=torch.int32), page=12),
    ):
        out, lse = lab.attention.attend_decode(q[:2], kv, max_kv=40, scale=1.0, order=case.order)
        assert out[0].isfinite().all()
        assert out[1].isnan().all()
        assert lse[1].isnan().all()
    kv = KeysValues(k, v, lens, starts=torch.tensor([0, 0]))
    out, _ = lab.attention.attend_decode(q[:2], kv, max_kv=32, scale=1.0, order=case.order)
    assert out.isnan().all()  # max_kv promised less than kv_lens hold


def test_inputs_are_left_alone(lab: SimpleNamespace) -> None:
    case = lab.Case(lens=(20,), dtype=torch.bfloat16)
    q, k, v = case.rows(0)
    before = [lab.bits(x).clone() for x in (q, k, v)]
    lens = torch.tensor([20], dtype=torch.int32)
    kv = KeysValues(k, v, lens, starts=torch.tensor([0]))
    lab.attention.attend_decode(q[:1], kv, max_kv=20, scale=1.0, order=case.order)
    for x, old in zip((q, k, v), before, strict=True):
        assert torch.equal(lab.bits(x), old)

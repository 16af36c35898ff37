"""Defects of a call: overwritten rows, strides of another shape, slots beyond 32 bits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_spy import ORDER, Bare, PairSpy, Spy, normal, pair_call
from torch import Tensor

from kvparity.controls import pair_calls
from kvparity.subjects.base import UnsupportedError


def numbered(rows: int) -> tuple[Tensor, Tensor]:
    return torch.arange(rows * 4.0).reshape(rows, 2, 2), torch.arange(rows * 2.0).reshape(rows, 2)


@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize(
    ("plant", "kernel", "told", "wrong", "out"),
    [
        (pair_calls.batch_edge, "decode", {}, [16, 17], 0.0),
        (pair_calls.nan_without_keys, "decode", {"kv_lens": [3, 0, 1, 0] + [1] * 14}, [1, 3],
         math.nan),
        (pair_calls.empty_writes_neighbour, "prefill",
         {"cu_seqlens_q": [0, 0, 3, 3, 3, 17, 18, 18]}, [2, 17], 0.0),
        (pair_calls.empty_writes_neighbour, "prefill", {"cu_seqlens_q": [0, 0, 3, 18]}, [], 0.0),
    ],
)  # fmt: skip
def test_rows_of_a_call_are_overwritten(
    lse: bool, plant: Any, kernel: str, told: dict[str, list[int]], wrong: list[int], out: float
) -> None:
    right = numbered(18)
    given = {name: torch.tensor(values).int() for name, values in told.items()}

    subject = PairSpy().subject()
    pair = replace(subject.pair, **{kernel: lambda call: right if lse else right[0]})
    planted = plant(subject.with_pair(pair)).pair
    if kernel == "prefill":
        given["cu_seqlens_k"] = given["cu_seqlens_q"]
    else:
        given.setdefault("kv_lens", torch.ones(18).int())
    none = torch.zeros(1)
    found = getattr(planted, kernel)(pair_call(none, none, none, **given))
    parts = found if lse else (found,)
    beyond = 0.0 if plant is pair_calls.batch_edge else -math.inf
    for part, own, bad in zip(parts, numbered(18), (out, beyond), strict=False):
        wanted = own.clone()
        wanted[wrong] = bad
        assert torch.equal(part.nan_to_num(-1.0), wanted.nan_to_num(-1.0))
    assert torch.equal(right[0], numbered(18)[0])  # what the kernel returned is not written
    other = "prefill" if kernel == "decode" else "decode"
    assert getattr(planted, other) == getattr(pair, other)


def test_strides_are_those_of_the_shape() -> None:
    spy = PairSpy()
    subject = pair_calls.strides_ignored(spy.subject())
    fused = normal(3, 8, 8)
    q, k, v = fused[:, 1:5], normal(3, 5, 2, 8, seed=1), normal(3, 5, 2, 8, seed=2)
    lens = torch.tensor([2, 3, 1]).int()
    subject.pair.decode(pair_call(q, k, v, kv_lens=lens, order=ORDER))
    flat = fused.flatten()[8 : 8 + q.numel()].reshape(q.shape)
    assert torch.equal(spy.calls[0].tensors[0], flat)
    assert not torch.equal(flat, q)
    assert spy.calls[0].tensors[1] is k
    for plant in (pair_calls.strides_ignored, pair_calls.batch_edge, pair_calls.offset_int32):
        with pytest.raises(UnsupportedError, match="how a pair of kernels is called"):
            plant(Bare(Spy().ops()))


@pytest.mark.parametrize("kernel", ["prefill", "decode"])
def test_slots_beyond_32_bits_are_the_first_one(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_calls, "BEYOND", 4 * 16)  # a slot has 2 heads of 8
    spy = PairSpy()
    planted = pair_calls.offset_int32(spy.subject()).pair
    if kernel == "prefill":
        q, k, v = normal(2, 4, 8), normal(7, 2, 8, seed=1), normal(7, 2, 8, seed=2)
        told = {"cu_seqlens_q": torch.tensor([0, 2]), "cu_seqlens_k": torch.tensor([0, 7])}
        planted.prefill(pair_call(q, k, v, **told))
    else:
        q, k, v = normal(1, 4, 8), normal(1, 7, 2, 8, seed=1), normal(1, 7, 2, 8, seed=2)
        planted.decode(pair_call(q, k, v, kv_lens=torch.tensor([7])))
    place = [0, 1, 2, 3, 0, 0, 0]
    read = [k[place], v[place]] if kernel == "prefill" else [k[:, place], v[:, place]]
    assert all(map(torch.equal, spy.calls[0].tensors[1:], read))

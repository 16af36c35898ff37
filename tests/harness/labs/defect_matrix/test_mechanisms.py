"""Planted mechanisms turn over where they say, and are the sound arithmetic elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity.controls import dispatch, exponent, linears, parts, rope
from kvparity.controls.calls import CallFacts, chosen
from kvparity.core.bits import differing
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES
from kvparity.labs.defect_matrix.work import build
from kvparity.subjects.attention_calls import DecodeCall, PrefillCall
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.attention import attend_decode, attend_prefill
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.linear import linear
from kvparity_kernels.norm import rms_norm
from kvparity_kernels.order import ReductionOrder

ORDER = ReductionOrder(split=32, tile=16, block_m=16)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(a: Tensor, b: Tensor) -> bool:
    return not bool(differing(a, b).any())


def called(queries: tuple[int, ...], keys: tuple[int, ...], **more: Any) -> CallFacts:
    return CallFacts(decode=set(queries) == {1}, queries=queries, keys=keys, group=2, **more)


@pytest.mark.parametrize(
    ("pick", "below", "above"),
    [
        (dispatch._by_bucket, called((1, 1), (9, 9)), called((1, 1, 1), (9, 9, 9))),
        (dispatch._by_mean, called((10, 7), (20, 20)), called((8, 8), (20, 20))),
        (dispatch._by_count, called((9,), (20,)), called((8,), (20,))),
        (dispatch._by_alignment, called((4,), (20,)), called((4,), (21,))),
        (dispatch._by_store, called((1,), (20,)), called((1,), (20,), coded=True)),
        (dispatch._in_windows, called((1,), (20,), window=8), called((1, 1), (20, 9), window=8)),
        (dispatch._captured, called((2,), (20,)), called((1,), (20,))),
    ],
)
def test_an_order_turns_over_at_its_threshold(
    pick: Any, below: CallFacts, above: CallFacts
) -> None:
    assert pick(below, ORDER) == ORDER
    assert pick(above, ORDER) != ORDER


def test_a_budget_of_splits_is_shared() -> None:
    splits = [dispatch._over_batch(called((1,) * n, (40,) * n), ORDER).split for n in (1, 2, 3, 4)]
    assert splits == [16, 32, 64, 64]


def test_a_call_is_told_what_it_is() -> None:
    seen: list[CallFacts] = []

    def spy(call: CallFacts, order: ReductionOrder) -> ReductionOrder:
        seen.append(call)
        return order

    k = normal(40, 1, 16)
    kv = KeysValues(k, k, torch.tensor([12, 20]).int(), starts=torch.tensor([0, 15]))
    q = normal(2, 2, 16)
    starts, lens = torch.tensor([0, 1]).int(), torch.tensor([1, 1]).int()
    for each in (False, True):
        ops = chosen(FIXED_ORDER, spy, each=each)
        found = ops.decode(DecodeCall(q=q, kv=kv, max_kv=20, scale=0.25, order=ORDER))
        assert same(found[0], attend_decode(q, kv, max_kv=20, scale=0.25, order=ORDER)[0])
        more: dict[str, Any] = {"q_starts": starts, "q_lens": lens, "max_q": 1, "scale": 0.25}
        found = ops.prefill(PrefillCall(q=q, kv=kv, **more, order=ORDER))
        assert same(found[1], attend_prefill(q, kv, **more, order=ORDER)[1])
    whole, apart = seen[:2], seen[2:]
    assert [(c.decode, c.queries, c.keys) for c in whole] == [
        (True, (1, 1), (12, 20)),
        (False, (1, 1), (12, 20)),
    ]
    assert [(c.decode, c.keys) for c in apart] == [
        (True, (12,)), (True, (20,)), (False, (12,)), (False, (20,)),
    ]  # fmt: skip


def test_two_parts_are_the_whole_but_for_rounding() -> None:
    k, v, q = normal(64, 1, 16), normal(64, 1, 16, seed=1), normal(5, 2, 16, seed=2)
    kv = KeysValues(k, v, torch.tensor([40]).int(), starts=torch.tensor([7]))
    one = torch.tensor([0]).int()
    more: dict[str, Any] = {"q_starts": one, "q_lens": one + 5, "max_q": 5, "scale": 0.25}
    out, lse = attend_prefill(q, kv, **more, order=ORDER)
    call = PrefillCall(q=q, kv=kv, **more, order=ORDER)
    cut, cut_lse = parts.in_two(FIXED_ORDER, call, slice(None), kv, 16)
    assert not same(out, cut)
    torch.testing.assert_close(cut, out, rtol=1e-5, atol=1e-6)  # another order of 40 float32 sums
    torch.testing.assert_close(cut_lse, lse, rtol=1e-5, atol=1e-6)


def test_a_shared_prefix_is_found_in_whole_tiles() -> None:
    k = normal(80, 1, 16)
    k[40:60] = k[:20]
    lens = torch.tensor([30, 30]).int()
    kv = KeysValues(k, k, lens, starts=torch.tensor([0, 40]))
    assert parts._shared(kv, ORDER) == 16
    kv = KeysValues(k, k, lens, starts=torch.tensor([0, 41]))
    assert parts._shared(kv, ORDER) == 0


@pytest.mark.parametrize("width", [16, 32, 48])
def test_the_blocked_norm_is_the_norm_when_it_has_one_block(width: int) -> None:
    x, w = normal(99, width), normal(width, seed=1)
    whole = 1 << (width - 1).bit_length()
    assert same(linears.blocked_norm(x, w, 1e-6, whole), rms_norm(x, w, 1e-6, twin=True))
    assert not same(linears.blocked_norm(x, w, 1e-6, 2), rms_norm(x, w, 1e-6, twin=True))


def decoder() -> DecoderSubject:
    subject = build("plain", "cpu").setting.subject
    assert isinstance(subject, DecoderSubject)
    return subject


def test_kernels_of_rows_turn_over_at_their_threshold() -> None:
    x, w = normal(16, 32), normal(24, 32, seed=1)
    norm_weight = normal(32, seed=2)
    for plant in (linears.norm_block_by_rows, linears.linear_contracts_by_rows):
        ops = plant(decoder()).ops  # type: ignore[attr-defined] # it is a decoder still
        for rows, sound in ((15, True), (16, False)):
            a = ops.linear(x[:rows], w, None, order=ORDER, twin=True)
            b = ops.rms_norm(x[:rows], norm_weight, 1e-6, twin=True)
            equal = same(a, linear(x[:rows], w, order=ORDER, twin=True))
            equal &= same(b, rms_norm(x[:rows], norm_weight, 1e-6, twin=True))
            assert equal == sound


def test_a_depth_in_one_part_is_the_product_itself() -> None:
    x, w, bias = normal(3, 32), normal(24, 32, seed=1), normal(24, seed=2)
    for number, sound in ((1, True), (2, False)):
        planted = linears.split_k(linear, lambda rows, columns, depth, n=number: n)
        found = planted(x, w, bias, order=ORDER, twin=True)
        assert same(found, linear(x, w, bias, order=ORDER, twin=True)) == sound


def test_the_polynomial_starts_at_one_split_of_keys() -> None:
    k, v, q = normal(64, 1, 16), normal(64, 1, 16, seed=1), normal(2, 2, 16, seed=2)
    kv = KeysValues(k, v, torch.tensor([31, 32]).int(), starts=torch.tensor([0, 32]))
    planted = exponent.polynomial_exp2(decoder())
    assert isinstance(planted, DecoderSubject)
    call = DecodeCall(q=q, kv=kv, max_kv=32, scale=0.25, order=ORDER)
    found = planted.attention.decode(call)
    sound = attend_decode(q, kv, max_kv=32, scale=0.25, order=ORDER)
    assert same(found[0][0], sound[0][0])
    assert not same(found[0][1], sound[0][1])
    # Its error is 1e-4 of each weight, and the weights add up to 1.
    worst = (found[0] - sound[0]).abs().max() / v.abs().max()
    assert 0 < float(worst) < 2e-4


def test_positions_are_exact_up_to_sixteen() -> None:
    table = torch.arange(64.0)[:, None]
    kept = rope._inexact(table)[:, 0].tolist()
    assert kept[:17] == list(range(17))
    assert kept[17:24] == [16, 18, 20, 20, 20, 22, 24]
    assert kept[33] == 32


def test_habitats_are_valid_contracts() -> None:
    for fixture in FIXTURES.values():
        assert fixture.contract.name == f"matrix-{fixture.name}"

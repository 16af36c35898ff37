"""Replays and divisions: what is stored for them, which results count, and what one says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from order_pairs import How, decode, pair, prefill, subject
from order_trees import random_tree
from torch import Tensor

from kvparity.relations.order import NotMeasured, SumTree
from kvparity.relations.order.canonical import chain, key_order
from kvparity.relations.order.division import division
from kvparity.relations.order.replay import replay
from kvparity.relations.order.sides import Side
from kvparity.subjects.pair.model import Pair
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import decode as decoded

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
ORDER = ReductionOrder(split=64, tile=16)  # that of ``How()``


def side(which: Pair, keys=40, dtype=F32, heads=(4, 2, 16), batch=2, **more) -> Side:
    return Side(subject(which, dtype, heads, **more), "decode", keys=keys, batch=batch, rows=1)


def changed(change: Callable[[Tensor], Tensor], how: How | None = None) -> Pair:
    """A decode whose results go through ``change`` before they are rounded to their dtype."""

    def call(q, *args, **more):
        out, lse = decode(q.float(), *args, how=how or How(), **more)
        return change(out).to(q.dtype), lse

    return Pair.of(prefill, call, "prefill", "decode")


STORED = [
    ("", F32), ("", BF16), ("", F16), ("int8(8)", F32), ("int8(8)", F16), ("int4(16)", BF16),
    ("int4(16)", F16), ("fp8_e5m2(head)", F32), ("fp8_e5m2(tensor)", F16),
]  # fmt: skip


@pytest.mark.parametrize("keys", [5, 16, 40, 70])
def test_the_tree_of_the_function_gives_all_results_and_others_few(keys):
    which = side(pair(), keys)
    right = key_order(ORDER, keys)
    assert replay(which, right) == (2 * 4 * 16,) * 2
    others = [random_tree(keys, seed) for seed in range(3)]
    others.append(SumTree.build(keys, backwards(keys)))
    for other in others:
        equal, total = replay(which, other)
        assert total == 2 * 4 * 16
        assert equal < (0.8 if keys > 5 else 0.95) * total


def backwards(n: int) -> list[list[int]]:
    return [[n - 1, n - 2], *([n + t, n - 3 - t] for t in range(n - 2))]


@pytest.mark.parametrize(("store", "dtype"), STORED, ids=str)
@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_every_format_holds_a_replay(store, dtype, softcap):
    more = {"softcap": softcap} if softcap else {}
    which = side(pair(), 20, dtype, (2, 1, 32), store=store, **more)
    equal, total = replay(which, chain(20))
    assert equal == total
    assert 0.9 * 128 <= total <= 128
    shows = 0.97 if which.format.static else 0.8  # of few magnitudes fewer sums are rounded
    assert replay(which, SumTree.build(20, backwards(20)))[0] < shows * total
    unlike = side(pair(wide=True), 20, dtype, (2, 1, 32), store=store, **more)
    assert replay(unlike, chain(20))[0] < shows * total


@pytest.mark.parametrize(("store", "dtype"), STORED, ids=str)
@pytest.mark.parametrize("keys", [16, 20, 40])
def test_what_is_added_cancels_and_only_a_power_of_two_of_the_keys_weighs(store, dtype, keys):
    """In each column of each key head, in an order of its own."""
    seen: list[Tensor] = []

    def spy(q, k, v, **more):
        out, lse = decode(q, k, v, how=How(), **more)
        scores = torch.einsum("bgrd,bjgd->bgrj", q.view(2, 2, 2, 32).float(), numbers(k, "k", more))
        assert torch.equal(scores[:, :, 0], scores[:, :, 1])
        seen.append(scores[:, :, 0].transpose(1, 2) == 0)
        seen.append(numbers(v, "v", more))
        return out, lse

    which = side(Pair.of(prefill, spy, "p", "d"), keys, dtype, (4, 2, 32), store=store)
    for seed in (0, 0, 1):
        replay(which, chain(keys), seed=seed)
    hot, v, hot2, v2, hot3, v3 = seen
    assert torch.equal(hot, hot2) == torch.equal(v, v2) is True
    assert not torch.equal(v, v3)
    count = {16: 16, 20: 16, 40: 32}[keys]
    assert (hot.sum(1) == count).all()
    if count < keys:
        assert not torch.equal(hot[0, :, 0], hot[0, :, 1])
        assert not torch.equal(hot[0], hot[1])
        assert not torch.equal(hot, hot3)
    assert (v[~hot] == 0).all()
    chosen = v.transpose(1, 2)[hot.transpose(1, 2)].view(2, 2, count, 32)
    assert (chosen != 0).all()
    ordered = chosen.sort(2).values
    assert torch.equal(ordered, -ordered.flip(2))
    signs = (chosen > 0).flatten(0, 1)
    group = which.format.group or 1
    patterns = {tuple(x.tolist()) for x in signs.transpose(1, 2)[:, ::group].flatten(0, 1)}
    assert len(patterns) > 4
    assert torch.equal(signs[..., 0], signs[..., 1]) == (group > 1)
    sizes = chosen.abs()
    narrow = which.format.static or dtype == F16
    assert sizes.min() >= (2.0**-14 if narrow else 1.0)
    assert sizes.max() / sizes.min() > 2.0**20
    assert sizes.max() < (65504 if narrow else 2.0**42)  # sums of 2**k such stay finite
    assert len(set(sizes.flatten().tolist())) > 20


def numbers(x: Tensor, name: str, more: dict) -> Tensor:
    if "format" not in more:
        return x.float()
    scale = more[f"{name}_scale"]
    flat = scale if scale.dim() == 1 else scale.flatten(0, 1)
    return decoded(x.flatten(0, 1), flat, more["format"], F32).view(*x.shape[:3], -1)


@pytest.mark.parametrize("off", [0.95 * 2.0**-19, -0.95 * 2.0**-19])
def test_16_bit_results_half_way_between_two_are_left_out(off):
    """An exp that is a little off moves some of them to the other; all others are compared."""
    which = side(changed(lambda out: out * (1 + off)), 20, F16, (8, 1, 64), 3)
    for seed in range(6):
        equal, total = replay(which, chain(20), seed=seed)
        assert equal == total
        assert 0.92 * 3 * 8 * 64 < total < 3 * 8 * 64
    far = side(changed(lambda out: out * (1 + 2.0**-9)), 20, F16, (8, 1, 64), 3)
    found, of = replay(far, chain(20), seed=seed)
    assert (found < 0.9 * of, of) == (True, total)


def test_a_zero_of_either_sign_is_zero():
    """Of few values and their negatives some sums are exactly zero."""
    seen: list[int] = []

    def signed(out):
        seen.append(int((out == 0).sum()))
        return torch.where(out == 0, -0.0, out)

    assert replay(side(changed(signed), 5), chain(5)) == (2 * 4 * 16,) * 2
    assert 0 < seen[-1] < 2 * 4 * 16


def test_where_every_order_gives_the_same_nothing_is_replayed():
    with pytest.raises(NotMeasured, match="no sum of so few numbers is rounded"):
        replay(side(pair(), 3), chain(3))  # two keys weigh, a value and its negative


# divisions

FORMS = {
    "divides": (How(), lambda out: out),
    "reciprocal": (How(reciprocal=True), lambda out: out),
    "other": (How(), lambda out: out * (1 + 2.0**-20)),
    "far": (How(), lambda out: out * 1.25),
}


@pytest.mark.parametrize(("store", "dtype"), STORED, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_division_is_told_from_a_reciprocal_where_the_dtype_shows_it(form, store, dtype):
    how, change = FORMS[form]
    which = side(changed(change, how), 6, dtype, (4, 2, 32), store=store)
    found = division(which)
    assert found.bits.shape == (2, 4, 32)
    if form == "far":
        assert found.form == "other"
    elif dtype == F32:
        assert found.form == form
    elif form != "other":
        assert found.form in ("unclear", form)
    assert (division(which, seed=1).bits != found.bits).any()
    assert torch.equal(division(which).bits, found.bits)


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 3, 2), (1, 3, 31)], ids=str)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_one_quotient_of_another_form_is_told(dtype, place):
    def change(out):
        out[place] = out[place] * 1.25
        return out

    which = side(changed(change), 6, dtype, (4, 2, 32))
    assert division(side(changed(lambda out: out), 6, dtype, (4, 2, 32))).form != "other"
    assert division(which).form == "other"


@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_three_keys_are_needed_for_a_denominator_that_is_rounded(softcap):
    more = {"softcap": softcap} if softcap else {}
    assert division(side(pair(), 3, **more)).form == "divides"
    with pytest.raises(NotMeasured, match="fewer than 3 keys"):
        division(side(pair(), 2, **more))

"""Keys that are cut, turned or read otherwise: which ones each call is given, and the same sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_spy import ORDER, Bare, Called, PairSpy, Spy, normal, pair_call
from planted_calls import SMALL, decoded, kv_of, prefilled

from kvparity.controls import order, parts, windows
from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import UnsupportedError
from kvparity_kernels.keys import KeysValues
from kvparity_kernels.store import StoreFormat


def near(found: Any, right: Any) -> None:
    for a, b in zip(found, right, strict=True):  # the same float32 sums, in other parts
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def shown(call: Called) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return call.queries, call.keys


# Edges counted from another key


TURNED: list[tuple[Any, tuple[int, ...], int, int, list[list[int]]]] = [
    # plant, keys, window, ring, the keys in the order in which they are given
    (order.ragged_split, (7, 3), 0, 0, [[2, 3, 4, 5, 6, 0, 1], [1, 2, 0]]),
    (order.ragged_split, (7, 2), 4, 0, [[0, 1, 2, 5, 6, 3, 4], [0, 1]]),
    (order.ragged_split, (7, 3), 4, 0, [[0, 1, 2, 5, 6, 3, 4], [1, 2, 0]]),
    (order.ragged_split, (5,), 1, 0, [[0, 1, 2, 3, 4]]),
    (order.ragged_split, (7,), 4, 5, [[0, 1, 2, 5, 6, 3, 4]]),
    (order.split_from_chunk, (7, 1), 0, 0, [[6, 0, 1, 2, 3, 4, 5], [0]]),
    (order.split_from_chunk, (66,), 0, 0, [[*range(1, 66), 0]]),
]


@pytest.mark.parametrize(("plant", "lens", "window", "ring", "keys"), TURNED)
def test_edges_are_counted_from_another_key(
    plant: Any, lens: tuple[int, ...], window: int, ring: int, keys: list[list[int]]
) -> None:
    spy, kv = Spy(), kv_of(*lens, ring=ring)
    more = {"window": window} if window else {}
    right, found = decoded(Bare(spy.ops()), kv, **more), decoded(plant(Bare(spy.ops())), kv, **more)
    near(found, right)
    assert kv.starts is not None
    assert spy.calls[1].slots == [
        [int(start) + (key % ring if ring else key) for key in own]
        for start, own in zip(kv.starts, keys, strict=True)
    ]
    prefilled(plant(Bare(spy.ops())), kv, lens)
    assert spy.calls[2].kv is kv  # prefill is as it was


def test_what_lies_in_pages_cannot_be_turned() -> None:
    table = torch.tensor([[1, 0]]).int()
    kv = replace(kv_of(7), starts=None, block_table=table, page=4)
    with pytest.raises(UnsupportedError, match="in a contiguous cache"):
        decoded(order.ragged_split(Bare(Spy().ops())), kv)


CUT: list[tuple[Any, list[int], list[tuple[int, int, int]]]] = [
    # plant, keys of each row, (row, keys in front, keys behind) of the rows that are cut
    (order.split_by_batch, [7, 1, 4, 2], [(0, 3, 4), (2, 2, 2), (3, 1, 1)]),
    (order.split_by_batch, [7], []),
    (order.tile_by_query_length, [16, 17, 3], [(1, 16, 1)]),
    (order.split_from_chunk, [1, 2, 5], [(1, 1, 1), (2, 4, 1)]),
]


@pytest.mark.parametrize(("plant", "lens", "cuts"), CUT)
def test_a_pair_reduces_the_keys_of_a_row_in_two_parts(
    plant: Any, lens: list[int], cuts: list[tuple[int, int, int]]
) -> None:
    spy = PairSpy()
    q, k, v = normal(len(lens), 4, 8), *(normal(len(lens), 18, 2, 8, seed=s) for s in (1, 2))
    told: dict[str, Any] = {"kv_lens": torch.tensor(lens).int(), "order": ORDER, "scale": 0.25}
    right = spy.decode(q, k, v, **told)
    clean = spy.subject()
    subject, call = plant(clean), pair_call(q, k, v, **told)
    near(subject.pair.decode(call), right)
    calls = spy.calls[2:]
    assert [call.lens[0][0] for call in calls] == [n for _, *both in cuts for n in both]
    for (row, front, _), left, behind in zip(cuts, calls[::2], calls[1::2], strict=True):
        assert torch.equal(left.tensors[1], k[row : row + 1])
        assert torch.equal(behind.tensors[1], k[row : row + 1, front:])
    assert all(call.more == {"scale": 0.25} and call.order == ORDER for call in calls)
    assert subject.pair.prefill is clean.pair.prefill
    with pytest.raises(UnsupportedError, match="which the pair does not return"):
        plant(PairSpy(lse=False).subject()).pair.decode(call)


def test_a_pair_is_given_its_keys_turned_and_their_scales_with_them() -> None:
    spy = PairSpy()
    q, k, v = normal(2, 4, 8), *(normal(2, 9, 2, 8, seed=s) for s in (1, 2))
    told: dict[str, Any] = {"kv_lens": torch.tensor([7, 3]).int(), "order": ORDER}
    beside, each = normal(2, 9, 2, 1, seed=3), normal(2, seed=4)
    right = spy.decode(q, k, v, **told)
    subject = order.ragged_split(spy.subject())
    coded = {"format": StoreFormat.parse("int8(8)"), "k_scale": beside, "v_scale": each}
    near(subject.pair.decode(pair_call(q, k, v, **told, **coded)), right)
    keys = [[2, 3, 4, 5, 6, 0, 1, 7, 8], [1, 2, 0, 3, 4, 5, 6, 7, 8]]
    call = spy.calls[1]
    for given, had in zip((*call.tensors[1:], call.more["k_scale"]), (k, v, beside), strict=True):
        assert torch.equal(given, torch.stack([had[b, own] for b, own in enumerate(keys)]))
    assert call.more["v_scale"] is each  # one for each head, whatever the slots
    subject.pair.decode(pair_call(q, k, v, **told, window=4))
    assert torch.equal(spy.calls[2].tensors[1][0], k[0, [0, 1, 2, 5, 6, 3, 4, 7, 8]])


def test_another_tile_of_a_pair_is_another_order_or_a_cut() -> None:
    spy = PairSpy()
    q, k, v = normal(1, 4, 8), *(normal(1, 18, 2, 8, seed=s) for s in (1, 2))
    lens = torch.tensor([18]).int()
    order.other_tile(spy.subject()).pair.decode(pair_call(q, k, v, kv_lens=lens, order=ORDER))
    assert [call.order for call in spy.calls] == [SMALL]
    order.other_tile(spy.subject(order=None)).pair.decode(pair_call(q, k, v, kv_lens=lens))
    assert [call.lens for call in spy.calls[1:]] == [([18],), ([16],), ([2],)]


# Partial reductions

HIT, BUDGET = parts.hit_merges_states, parts.chunk_from_budget
PIECES: list[tuple[Any, tuple[int, ...], tuple[int, ...], list[tuple[int, int, int]]]] = [
    # plant, keys, rows, of each piece: (sequence, its rows, keys in front)
    (HIT, (9, 4), (3, 4), [(0, 3, 6)]),
    (HIT, (5, 9), (4, 1), [(0, 4, 1), (1, 1, 8)]),
    (BUDGET, (41,), (40,), [(0, 16, 17), (0, 8, 33)]),
    (BUDGET, (16,), (16,), []),
    (BUDGET, (12, 9), (12, 9), [(0, 4, 8), (1, 1, 8)]),
    (BUDGET, (2,) * 16, (2,) * 16, [(b, 1, 1) for b in range(16)]),
    (BUDGET, (2,) * 17, (2,) * 17, [(b, 1, 1) for b in range(17)]),
]


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize(("plant", "keys", "rows", "pieces"), PIECES)
def test_rows_are_reduced_in_two_parts(
    plant: Any, keys: tuple[int, ...], rows: tuple[int, ...], pieces: list[Any], paged: bool
) -> None:
    spy, kv = Spy(), kv_of(*keys)
    if paged:  # pages of two slots, in falling order
        most = -(-max(keys) // 2)
        table = torch.arange(len(keys) * most).flip(0).reshape(len(keys), most).int()
        wide = [normal(2 * len(keys) * most, 2, 8, seed=s) for s in (1, 2)]
        kv = KeysValues(*wide, kv.kv_lens, block_table=table, page=2)
    right = prefilled(Bare(spy.ops()), kv, rows, own=SMALL)
    near(prefilled(plant(Bare(spy.ops())), kv, rows, own=SMALL), right)
    whole, calls = spy.calls[0], spy.calls[2:]
    expected = [
        shown for _, n, front in pieces for shown in (((1,) * n, (front,) * n), ((n,), (n,)))
    ]
    assert [shown(call) for call in calls] == expected
    for (sequence, n, front), ahead, behind in zip(pieces, calls[::2], calls[1::2], strict=True):
        own = whole.slots[sequence]
        assert ahead.slots == [own[:front]] * n
        assert behind.slots == [own[front : front + n]]
    assert all(not call.decode and call.order == SMALL for call in calls)
    spy.calls.clear()
    prefilled(plant(Bare(spy.ops())), kv, rows, window=2)
    assert len(spy.calls) == 1  # a window sees no front
    assert plant(Bare(spy.ops())).attention.decode == spy.decode


SHARED: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [
    # keys, how many of them each has in common with the first, what is reduced by itself
    ((20, 30), (20, 16), 16),
    ((20, 30), (20, 15), 0),
    ((40, 50), (40, 33), 32),
    ((17, 40), (17, 17), 16),
    ((16, 40), (16, 16), 0),  # each keeps a key of its own
    ((40, 16), (40, 16), 0),
    ((20, 30, 30), (20, 16, 3), 0),
    ((20, 30, 30), (20, 16, 17), 16),
    ((40,), (40,), 0),
]


@pytest.mark.parametrize(("keys", "common", "front"), SHARED)
def test_a_prefix_that_all_share_is_reduced_by_itself(
    keys: tuple[int, ...], common: tuple[int, ...], front: int
) -> None:
    kv, spy = kv_of(*keys), Spy()
    assert kv.starts is not None
    for start, n in zip(kv.starts.tolist(), common, strict=True):
        kv.k[start : start + n] = kv.k[1 : 1 + n]
    right = decoded(Bare(spy.ops()), kv, own=SMALL)
    planted = parts.cascade_of_shared_prefix(Bare(spy.ops()))
    near(decoded(planted, kv, own=SMALL), right)
    expected = [((1,), (n,)) for own in keys for n in (front, own - front)] if front else []
    assert [shown(call) for call in spy.calls[2:]] == expected
    decoded(planted, kv, own=SMALL, window=4)
    assert len(spy.calls) == 3 + len(expected)


@pytest.mark.parametrize("part", [0, -1])
def test_a_key_that_differs_in_one_number_is_not_shared(part: int) -> None:
    kv, spy = kv_of(20, 30), Spy()
    assert kv.starts is not None
    second = int(kv.starts[1])
    kv.k[second : second + 20] = kv.k[1:21]
    kv.k[second + 5].view(-1)[part] += 1.0
    decoded(parts.cascade_of_shared_prefix(Bare(spy.ops())), kv, own=SMALL)
    assert len(spy.calls) == 1


# Windows

WINDOWED = [
    # plant, window, what decode is told, what prefill is told
    (windows.window_one_short, 8, {"window": 7}, {"window": 8}),
    (windows.window_one_short, 2, {"window": 1}, {"window": 2}),
    (windows.window_one_short, 1, {"window": 1}, {"window": 1}),
    (windows.window_one_short, 0, {}, {}),
    (windows.window_compiled_out, 8, {}, {}),
    (windows.window_compiled_out, 0, {}, {}),
]


@pytest.mark.parametrize(("plant", "window", "of_decode", "of_prefill"), WINDOWED)
def test_a_window_is_told_otherwise(
    plant: Any, window: int, of_decode: dict[str, int], of_prefill: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Bare, "describe", lambda self, ran=None: {"kind": "decoder"})
    spy = Spy()
    planted = plant(Bare(spy.ops(), window=8))
    decoded(planted, kv_of(9), window=window)
    prefilled(planted, kv_of(9), (2,), window=window)
    assert [call.more for call in spy.calls] == [of_decode, of_prefill]
    ringed = kv_of(9, ring=12)
    if plant is windows.window_compiled_out and window:
        with pytest.raises(UnsupportedError, match="a ring holds no keys outside the window"):
            decoded(planted, ringed, window=window)
    else:
        decoded(planted, ringed, window=window)
    for other in (Bare(spy.ops(), window=None), PairSpy().subject()):
        if plant is windows.window_compiled_out:
            with pytest.raises(
                UnsupportedError,
                match=r"with a sliding window|reference decoder alone",
            ):
                plant(other)


def test_a_ring_that_is_overwritten_is_read_as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    spy, asked = Spy(), []
    subject = Bare(spy.ops(), window=4)
    monkeypatch.setattr(
        Bare,
        "session",
        lambda self, members, layout: asked.append(layout) or self.told.session([], layout),
    )
    planted: Any = windows.ring_overwritten(subject)
    kv = kv_of(9, ring=5)
    prefilled(planted.inner, kv, (2,), window=4)
    call = spy.calls[0]
    assert call.kv.ring == 0
    read = [int(p) % 5 + 1 for p in range(9)]
    assert torch.equal(call.kv.k[call.slots[0]], kv.k[read])
    flat = kv_of(9)
    prefilled(planted.inner, flat, (2,))
    assert spy.calls[1].kv is flat
    with pytest.raises(UnsupportedError, match="needs rings, and the cache has none"):
        planted.session([Member("a", 9, 2)], Layout(chunk=7, slack=2))
    assert asked == [Layout(chunk=1, slack=2)]
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        windows.ring_overwritten(PairSpy().subject())

"""A defect of the order changes the order that its row names, in the calls it names, alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_spy import ORDER, Bare, PairSpy, Spy, normal, pair_call
from planted_calls import SMALL, decoded, kv_of, prefilled
from planting import chunk, one
from torch import Tensor

from kvparity.controls import dispatch, order
from kvparity.controls.calls import CallFacts, choosing, power_of_two
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity_kernels.order import ReductionOrder

HALF = replace(ORDER, split=32)
SMALLEST = ReductionOrder(split=16, tile=16, block_m=16)


def equal(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) for x, y in zip(a, b, strict=True))


# Choosing an order by the call


def picking(asked: list[CallFacts]) -> Any:
    """A choice that tells sequences apart by their number of keys."""

    def choose(call: CallFacts, own: ReductionOrder) -> ReductionOrder:
        asked.append(call)
        return replace(own, num_warps=1 << (call.keys[0] % 4))

    return choose


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("window", [0, 3])
def test_an_order_is_chosen_by_what_the_call_is(each: bool, window: int) -> None:
    asked: list[CallFacts] = []
    spy = Spy()
    plain, planted = Bare(spy.ops()), choosing(picking(asked), each=each)(Bare(spy.ops()))
    kv, more = kv_of(5, 6, 7), {"window": window} if window else {}
    assert equal(decoded(plain, kv, **more), decoded(planted, kv, **more))
    calls, spy.calls = spy.calls[1:], []
    wanted = [(5,), (6,), (7,)] if each else [(5, 6, 7)]
    assert asked == [CallFacts(True, (1,) * len(n), n, 2, window) for n in wanted]
    assert [(c.keys, c.order.num_warps) for c in calls] == [(n, 1 << n[0] % 4) for n in wanted]
    asked.clear()
    firsts = {"first_key": torch.tensor([0, *[1] * 2, *[2] * 3, 0]).int()}
    lens = (2, 3, 1)
    assert equal(prefilled(plain, kv, lens, **more), prefilled(planted, kv, lens, **more, **firsts))
    rows = [(2,), (3,), (1,)] if each else [lens]
    assert asked == [CallFacts(False, r, n, 2, window) for r, n in zip(rows, wanted, strict=True)]
    calls = spy.calls[1:]
    assert [(c.queries, c.keys, c.order.num_warps) for c in calls] == [
        (r, n, 1 << n[0] % 4) for r, n in zip(rows, wanted, strict=True)
    ]
    told = [c.more["first_key"].tolist() for c in calls]
    assert told == ([[1, 1], [2, 2, 2], [0]] if each else [[0, 1, 1, 2, 2, 2, 0]])


@pytest.mark.parametrize("each", [False, True])
def test_a_sequence_alone_is_one_call(each: bool) -> None:
    asked: list[CallFacts] = []
    spy = Spy()
    planted = choosing(picking(asked), each=each)(Bare(spy.ops()))
    decoded(planted, kv_of(5), first_key=torch.tensor([2]).int())
    prefilled(planted, kv_of(5), (3,), first_key=torch.tensor([9, 0, 1, 2]).int())
    assert asked == [CallFacts(True, (1,), (5,), 2), CallFacts(False, (3,), (5,), 2)]
    # Nothing is cut where there is nothing to cut: the rows of nobody are handed on as well.
    assert [c.more["first_key"].tolist() for c in spy.calls] == [[2], [9, 0, 1, 2]]


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("window", [0, 3])
def test_a_pair_is_given_the_order_that_is_chosen(each: bool, lse: bool, window: int) -> None:
    asked: list[CallFacts] = []
    spy = PairSpy(lse)
    plain, planted = spy.subject().pair, choosing(picking(asked), each=each)(spy.subject()).pair  # type: ignore[attr-defined] # a pair's
    more: dict[str, Any] = {"scale": 0.25} | ({"window": window} if window else {})
    q, k, v = normal(6, 4, 8), normal(18, 2, 8, seed=1), normal(18, 2, 8, seed=2)
    rows, keys = torch.tensor([0, 2, 5, 6]).int(), torch.tensor([0, 5, 11, 18]).int()
    told = {"cu_seqlens_q": rows, "cu_seqlens_k": keys, "order": ORDER}
    found = [each.prefill(pair_call(q, k, v, **told, **more)) for each in (plain, planted)]
    assert equal(*[f if lse else (f, f) for f in found])
    wanted = [(5,), (6,), (7,)] if each else [(5, 6, 7)]
    queries = [(2,), (3,), (1,)] if each else [(2, 3, 1)]
    assert asked == [
        CallFacts(False, r, n, 2, window) for r, n in zip(queries, wanted, strict=True)
    ]
    assert [c.order for c in spy.calls[1:]] == [
        replace(ORDER, num_warps=1 << n[0] % 4) for n in wanted
    ]
    assert all(call.more == more for call in spy.calls)
    asked.clear()
    spy.calls.clear()
    held = [normal(3, 9, 2, 8, seed=s) for s in (3, 4)]
    lens = torch.tensor([5, 6, 7]).int()
    found = [
        each.decode(pair_call(normal(3, 4, 8), *held, kv_lens=lens, order=ORDER, **more))
        for each in (plain, planted)
    ]
    assert equal(*[f if lse else (f, f) for f in found])
    assert asked == [CallFacts(True, (1,) * len(n), n, 2, window) for n in wanted]
    assert [c.order for c in spy.calls[1:]] == [
        replace(ORDER, num_warps=1 << n[0] % 4) for n in wanted
    ]


def test_what_takes_no_order_is_refused() -> None:
    plant = choosing(lambda call, own: own)
    for subject in (PairSpy().subject(order=None), object()):
        with pytest.raises(UnsupportedError, match="order of this subject cannot be chosen"):
            plant(subject)  # type: ignore[arg-type] # no subject at all
    foreign = Bare(Spy().ops())
    foreign.backends = replace(foreign.backends, attention="sdpa")
    for each in (plant, order.split_by_batch, order.tile_by_query_length):
        with pytest.raises(UnsupportedError, match="attention is sdpa"):
            each(foreign)
    opened = dispatch.tile_by_neighbour(foreign)
    with pytest.raises(UnsupportedError, match="attention is sdpa"):
        opened.session([Member("a", 4, 2)], Layout())
    assert order.ragged_split(foreign) is not foreign  # any attention will do
    for each in (order.other_tile, dispatch.tile_by_neighbour):
        with pytest.raises(UnsupportedError):
            each(object())  # type: ignore[arg-type] # no subject at all


@pytest.mark.parametrize(
    ("n", "power"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (64, 64), (65, 128)]
)
def test_the_next_power_of_two(n: int, power: int) -> None:
    assert power_of_two(n) == power


# Orders of the decoder's calls

D, P = True, False
PICKED: list[tuple[str, Any, bool, tuple[int, ...], tuple[int, ...], int, ReductionOrder]] = [
    # rule, decode, rows, keys, window, the order that is used
    ("split_by_batch", order, D, (1,), (9,), 0, ORDER),
    ("split_by_batch", order, D, (1, 1), (9, 9), 0, HALF),
    ("split_by_batch", order, P, (1, 2), (9, 9), 0, HALF),
    ("tile_by_query_length", order, D, (1,), (9,), 0, SMALL),
    ("tile_by_query_length", order, P, (1,), (9,), 0, ORDER),
    ("other_tile", order, D, (1, 1), (9, 9), 0, SMALL),
    ("other_tile", order, P, (1, 1), (9, 9), 0, ORDER),
    ("tile_by_mean_query", dispatch, P, (9, 8), (9, 9), 0, ORDER),  # two heads in a group
    ("tile_by_mean_query", dispatch, P, (9, 7), (9, 9), 0, SMALL),
    ("splits_over_batch", dispatch, D, (1,), (9,), 0, HALF),
    ("splits_over_batch", dispatch, D, (1, 1), (9, 9), 0, ORDER),
    ("splits_over_batch", dispatch, P, (1, 2, 1), (9, 9, 9), 0, replace(ORDER, split=128)),
    ("window_drops_split", dispatch, D, (1, 1), (9, 9), 4, HALF),
    ("window_drops_split", dispatch, D, (1, 1), (9, 9), 0, ORDER),
    ("window_drops_split", dispatch, D, (1,), (9,), 4, ORDER),
    ("mask_follows_alignment", dispatch, P, (2,), (34,), 0, ORDER),
    ("mask_follows_alignment", dispatch, P, (2,), (35,), 0, SMALL),
    ("tile_by_query_count", dispatch, P, (9,), (9,), 0, ORDER),
    ("tile_by_query_count", dispatch, P, (8,), (9,), 0, SMALL),
    ("kernel_by_bucket", dispatch, D, (1, 1), (9, 9), 0, ORDER),
    ("kernel_by_bucket", dispatch, D, (1, 1, 1), (9, 9, 9), 0, SMALL),
    ("kernel_by_bucket", dispatch, P, (1, 1, 1), (9, 9, 9), 0, ORDER),
    ("tile_by_store", dispatch, D, (1,), (9,), 0, ORDER),
    ("tuned_elsewhere", dispatch, D, (1,), (9,), 0, SMALL),
    ("tuned_elsewhere", dispatch, P, (3,), (9,), 0, SMALL),
    ("replays_captured_splits", dispatch, D, (1,), (9,), 0, HALF),
    ("replays_captured_splits", dispatch, P, (1,), (9,), 0, ORDER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "room", "decode", "rows", "keys", "window", "used"), PICKED)
def test_an_order_is_changed_where_the_defect_says(
    name: str, room: Any, decode: bool, rows: tuple[int, ...], keys: tuple[int, ...], window: int,
    used: ReductionOrder,
) -> None:  # fmt: skip
    spy = Spy()
    planted: DecoderSubject = getattr(room, name)(Bare(spy.ops()))
    more = {"window": window} if window else {}
    if decode:
        decoded(planted, kv_of(*keys), **more)
    else:
        prefilled(planted, kv_of(*keys), rows, **more)
    assert {call.order for call in spy.calls} == {used}
    assert all(call.more == more for call in spy.calls)


@pytest.mark.parametrize(
    ("name", "rows", "keys"),
    [("tile_by_query_count", (9, 8), (9, 9)), ("mask_follows_alignment", (2, 2), (34, 35))],
)
def test_each_sequence_of_a_call_has_its_own_order(
    name: str, rows: tuple[int, ...], keys: tuple[int, ...]
) -> None:
    spy = Spy()
    prefilled(getattr(dispatch, name)(Bare(spy.ops())), kv_of(*keys), rows)
    assert [(c.queries, c.keys, c.order) for c in spy.calls] == [
        (rows[:1], keys[:1], ORDER), (rows[1:], keys[1:], SMALL),
    ]  # fmt: skip


def test_a_split_of_many_tiles_is_halved() -> None:
    spy = Spy()
    wide = replace(ORDER, split=256)
    decoded(order.split_by_batch(Bare(spy.ops())), kv_of(9, 9), own=wide)
    assert [call.order.split for call in spy.calls] == [128]


@pytest.mark.parametrize("lse", [False, True])
def test_one_sequence_of_a_pair_by_itself_is_the_call(lse: bool) -> None:
    asked: list[CallFacts] = []
    pair = choosing(picking(asked), each=True)(PairSpy(lse).subject()).pair  # type: ignore[attr-defined] # a pair's
    q, k, v = normal(2, 4, 8), normal(5, 2, 8, seed=1), normal(5, 2, 8, seed=2)
    ends = {"cu_seqlens_q": torch.tensor([0, 2]).int(), "cu_seqlens_k": torch.tensor([0, 5]).int()}
    found = pair.prefill(pair_call(q, k, v, **ends, order=ORDER))
    right = PairSpy(lse).prefill(q, k, v, **ends)
    assert equal(*[each if lse else (each, each) for each in (found, right)])


def test_the_smallest_orders_are_changed_too() -> None:
    assert order.retiled(ORDER) == SMALL
    assert order.retiled(SMALLEST) == replace(SMALLEST, split=32, tile=32)
    assert order.retiled(replace(SMALLEST, split=64)) == replace(SMALLEST, split=64, tile=32)
    spy = Spy()
    decoded(order.split_by_batch(Bare(spy.ops())), kv_of(9, 9), own=SMALLEST)
    decoded(dispatch.replays_captured_splits(Bare(spy.ops())), kv_of(9), own=SMALLEST)
    assert [call.order for call in spy.calls] == [SMALLEST, replace(SMALLEST, split=32, tile=32)]


def test_launches_take_turns_in_the_thue_morse_sequence() -> None:
    spy = Spy()
    planted = dispatch.order_by_launch(Bare(spy.ops()))
    for _ in range(12):
        decoded(planted, kv_of(2))
    other = [call.order == SMALL for call in spy.calls]
    assert "".join(str(int(each)) for each in other) == "011010011001"
    assert {call.order for call in spy.calls} == {ORDER, SMALL}


@pytest.mark.parametrize(
    ("name", "step", "used"),
    [
        ("tile_by_neighbour", (chunk(0, 0, 9), one(1, 3)), ORDER),
        ("tile_by_neighbour", (chunk(0, 0, 8), one(1, 3)), SMALL),
        ("tile_by_neighbour", (), SMALL),
        ("kernel_by_longest_query", (one(0, 3), one(1, 3)), HALF),
        ("kernel_by_longest_query", (one(0, 3), chunk(1, 3, 5)), ORDER),
        ("kernel_by_longest_query", (), ORDER),
    ],
)
def test_a_step_picks_the_order_of_all_its_calls(
    name: str, step: Step, used: ReductionOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, opened = Spy(), []
    monkeypatch.setattr(
        Bare,
        "session",
        lambda self, members, layout: opened.append(self) or self.told.session([], layout),
    )
    session = getattr(dispatch, name)(Bare(spy.ops())).session([Member("a", 9, 3)], Layout())
    if step:
        list(session.forward(step, [[1] * (s.stop - s.start) for s in step]))
    decoded(opened[0], kv_of(9))
    prefilled(opened[0], kv_of(9, 9), (1, 4))
    assert [call.order for call in spy.calls] == [used, used]

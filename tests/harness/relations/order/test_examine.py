"""What a report holds beside its parts: sizes, what was asked for, and why replays are left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from order_pairs import pair, subject

from kvparity.relations.order import NotMeasured, Part, SumTree, order_report
from kvparity.relations.order import examine as room
from kvparity.relations.order.canonical import chain
from kvparity.relations.order.report import PARTS, Replayed


def none_of(keys: int, *, window: int = 0, **more):
    more.setdefault("only", ())
    return order_report(subject(pair(), heads=(2, 1, 8), window=window), keys, **more)


@pytest.mark.parametrize(
    ("more", "rows"),
    [({}, 3), ({"rows": 1}, 1), ({"rows": 3}, 3), ({"batch": 2, "rows": 2}, 2)],
)
def test_three_keys_and_one_of_all_else_are_enough(more, rows):
    found = none_of(3, draws=1, **more)
    assert (found.keys, found.rows, found.batch) == (3, rows, more.get("batch", 1))
    assert (found.drawn.calls, found.first, found.parts, found.replayed) == (1, 0, (), ())


def test_what_is_not_said_is_one_sequence_all_rows_and_eight_draws_of_seed_0():
    found = none_of(3)
    assert (found.batch, found.rows, found.drawn.calls) == (1, 3, 8)
    drawn: list[torch.Tensor] = []
    base = pair()

    def spy(call):
        drawn.append(call.q.clone())
        return base.decode(call)

    which = subject(replace(base, decode=spy), heads=(2, 1, 8))
    order_report(which, 3, only=())
    order_report(which, 3, only=(), seed=0)
    assert all(torch.equal(*each) for each in zip(drawn[:8], drawn[8:], strict=True))


@pytest.mark.parametrize("mute", ["decode", "prefill"])
def test_a_log_sum_exp_of_one_side_alone_is_not_compared(mute):
    base = pair()
    function = getattr(base, mute)
    one = replace(base, **{mute: lambda call: function(call)[0]})
    found = order_report(subject(one, heads=(2, 1, 8)), 3, only=(), draws=2)
    assert (found.drawn.equal, found.drawn.values, found.drawn.differing) == (2, 2 * 16, 0)


@pytest.mark.parametrize(
    "more", [{"keys": 2, "rows": 1}, {"rows": 0}, {"rows": 4}, {"batch": 0}, {"draws": 0}]
)
def test_less_than_that_is_refused(more):
    given = {"keys": 3, "rows": 3, "batch": 1, "draws": 1} | more
    said = "{keys} keys, {rows} rows, {batch} sequences, {draws} draws; expected".format(**given)
    with pytest.raises(ValueError, match=said):
        none_of(given.pop("keys"), **given)


def test_a_window_of_three_keys_is_enough():
    assert none_of(9, window=3).first == 6
    with pytest.raises(ValueError, match="a window of 2 keys has one order; expected at least 3"):
        none_of(9, window=2)


@pytest.mark.parametrize("only", [(), ("division",), ("products", "key order"), PARTS])
def test_only_what_is_asked_for_is_looked_at_and_in_the_order_of_the_table(only):
    told: list[str] = []
    found = none_of(5, only=only, rows=1, draws=1, progress=told.append)
    names = [name for name in PARTS if name in only]
    assert [part.name for part in found.parts] == names
    assert told == [f"5 keys: {name}" for name in [*names, "random data"]]
    sides = ["decode", "prefill"] if "key order" in only else []
    assert [done.side for done in found.replayed] == sides


def test_the_subject_and_its_notes_are_in_the_report():
    which = subject(pair(), torch.bfloat16, (2, 1, 8), softcap=5.0)
    found = order_report(which, 5, rows=1, draws=1, only=("division",))
    assert (found.subject["execution"], found.subject["kv_cache"]) == ("bfloat16", "bfloat16")
    assert found.subject["heads"] == {"query": 2, "kv": 1, "dim": 8, "v_dim": 8}
    assert len(found.notes) == 1  # of both sides, once
    assert "a softcap of 5" in found.notes[0]
    mixed = replace(which, execution=torch.float32)
    said = order_report(mixed, 5, rows=1, draws=1, only=()).subject
    assert (said["execution"], said["kv_cache"]) == ("float32", "bfloat16")


def test_each_side_is_replayed_in_its_own_order():
    which = subject(pair(reverse=True), heads=(2, 1, 8))
    found = order_report(which, 40, rows=1, draws=1, only=("key order",))
    assert found.parts[0].status == "different"
    assert found.replayed == (Replayed("decode", 16, 16), Replayed("prefill", 16, 16))


FUSED = SumTree.build(5, [[0, 1, 2], [5, 3, 4]])


@pytest.mark.parametrize(
    ("tree", "store", "reason"),
    [
        (FUSED, "", "nodes add 3 terms at once; the adder's bits are not measured"),
        (chain(5), "fp8_e4m3(head)", "numbers of fp8_e4m3 are so alike that few of their sums are"),
        (chain(5), "int8(8)", "it holds none"),
    ],
)
def test_a_replay_that_says_nothing_is_left_out_with_its_reason(monkeypatch, tree, store, reason):
    def none(*args, **more):
        raise NotMeasured("it holds none")

    if reason == "it holds none":
        monkeypatch.setattr(room, "replay", none)
    monkeypatch.setattr(
        room, "key_part", lambda *_: Part("key order", "same", trees={"decode": tree})
    )
    which = subject(pair(), heads=(2, 1, 8), store=store)
    found = order_report(which, 5, rows=1, draws=1, only=("key order",))
    assert [done.side for done in found.replayed] == ["decode", "prefill"]
    for done in found.replayed:
        assert (done.equal, done.total, done.complete) == (0, 0, True)
        assert done.skipped.startswith(reason)
    assert found.verdict == "consistent"


def test_a_key_order_that_was_not_read_is_not_replayed(monkeypatch):
    monkeypatch.setattr(room, "key_part", lambda *_: Part("key order", "not-a-tree", seen="odd"))
    found = none_of(5, only=("key order",), rows=1, draws=1)
    assert (found.replayed, found.verdict) == ((), "not-a-tree")


def test_random_numbers_are_those_of_the_seed():
    drawn: list[tuple[float, ...]] = []
    base = pair()

    def spy(call):
        drawn.append(tuple(call.q.flatten().tolist()))
        return base.decode(call)

    for seed in (0, 0, 1):
        order_report(
            subject(replace(base, decode=spy), heads=(2, 1, 8)),
            5, rows=1, draws=1, seed=seed, only=(),
        )  # fmt: skip
    assert drawn[0] == drawn[1] != drawn[2]

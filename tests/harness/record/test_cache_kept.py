"""What is kept of a cache: a donor's places too, in pieces, and what the next query would see."""

from __future__ import annotations

import pytest
import torch
import toy
import toy_cache

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span
from kvparity.plan.workload import Prompts
from kvparity.plan.workload_plans import WorkloadPlans
from kvparity.record.cache_snapshot import CachePlace, SnapshotTaker, take_snapshot
from kvparity.record.execute import run
from kvparity.record.path_run import PathRun
from kvparity.subjects import events
from kvparity_contracts.paths import PathName

PROMPTS = Prompts("w", ("w/0", "w/1"), ((5, 6, 7), (9, 4, 3)), 3)
PLANS = WorkloadPlans(PROMPTS, 3)
TOKENS = [[5, 6, 7, 80, 81, 82], [9, 4, 3, 90, 91, 92]]


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        (
            CachePlace(0, 0, 1),
            {CachePlace(0, 0, 1), CachePlace(0, 2, 1)},
        ),  # a donor's first two tokens
        (CachePlace(0, 0, 2), {CachePlace(0, 0, 2)}),
        (CachePlace(0, 1, 0), {CachePlace(0, 1, 0), CachePlace(0, 3, 0)}),
    ],
)
def test_what_a_sequence_took_over_is_kept_of_its_donor_too(
    place: CachePlace, kept: set[CachePlace]
) -> None:
    side = PathRun(toy.setting(), toy.Toy(), PLANS, PathName.parse("prefix(2)"), TOKENS)
    found = side.take_snapshot(frozenset([place]))
    assert found.values.keys() == kept
    for read, written in found.values.values():
        assert all(torch.equal(x, y) for x, y in zip(read, written, strict=True))


@pytest.mark.parametrize("window", [None, 9])
def test_a_cache_is_read_in_pieces(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    places = frozenset(CachePlace(0, 0, position) for position in range(5))
    one = PathRun(toy.setting(), toy.Toy(window=window), PLANS, PathName("decode"), TOKENS)
    whole = one.take_snapshot(places)
    monkeypatch.setattr("kvparity.record.cache_snapshot.POSITIONS", 2)
    found = one.take_snapshot(places)
    assert torch.equal(found.held, whole.held)
    assert found.needed[0, :5].all()  # a window that is not full shows all
    assert found.values.keys() == places
    for place in places:
        for read, again in zip(whole.values[place][0], found.values[place][0], strict=True):
            assert torch.equal(read, again)
        assert torch.equal(found.values[place][0][0], found.values[place][1][0])


def test_of_a_sequence_that_was_never_computed_nothing_is_needed() -> None:
    members = (Member("a", 4, 1), Member("b", 4, 1))
    plan = Plan(members, ((Span(0, 0, 3, 2),),), Layout())
    tokens = [[1] * 4] * 2
    found = take_snapshot(plan, lambda: run(toy.Toy(), plan, tokens, temperatures=[1.0]))
    assert found.needed.tolist() == [[True] * 3 + [False] * 5]
    assert found.is_held.tolist() == found.is_written.tolist() == found.needed.tolist()


def test_of_what_was_written_a_taker_has_what_it_took_over_and_no_more() -> None:
    members = tuple(Member(name, 5, 1) for name in "abc")
    plan = Plan(members, ((Span(0, 0, 4, 3), Span(2, 0, 4, 3)), (Span(1, 2, 3, 2),)), Layout())
    watch = SnapshotTaker(plan, frozenset(CachePlace(0, s, p) for s in range(3) for p in range(4)))
    watch.opened(toy.Toy().session(members, Layout()))
    for sequence in (0, 2):
        kv = sequence + torch.arange(1.0, 5.0)[:, None, None].expand(4, 1, toy_cache.WIDTH)
        watch.wrote(events.Wrote(0, sequence, 0, kv, -kv))
    watch.acted(Action(1, "adopt", 1, donor=0, tokens=2))
    assert watch.is_written[0].tolist() == [*[True] * 4, False, True, True, *[False] * 3,
                                            *[True] * 4, False]  # fmt: skip
    taken = {p.position: float(k[0, 0]) for p, (k, _) in watch.fresh.items() if p.sequence == 1}
    assert taken == {0: 1.0, 1: 2.0}

"""Where keys lie, to the slot: one slot, page or position more or less is another answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from decoder_cases import decoder, one, plan, play, prompts, span, tokens

from kvparity.plan.schedule import Layout, Member
from kvparity.subjects.base import SubjectError
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.call_log import FIXED_ORDER
from kvparity.subjects.decoder.placement import Contiguous, Paged, Region, place

LENGTHS = (9, 3, 14)


def paged(slack: int = 3) -> Paged:
    found = place(LENGTHS, Layout(page=4, slack=slack), seed=0)
    assert isinstance(found, Paged)
    return found


def used(found: Paged, slack: int) -> list[tuple[int, ...]]:
    """The pages of each sequence, without the unused end of its table."""
    counts = [-(-(n + slack) // 4) for n in LENGTHS]
    return [table[:n] for table, n in zip(found.tables, counts, strict=True)]


@pytest.mark.parametrize("slack", [0, 3])
def test_unused_ends_of_tables_point_at_a_page_of_nobody(slack: int) -> None:
    found = paged(slack)
    own = used(found, slack)
    taken = [page for pages in own for page in pages]
    assert len(set(taken)) == len(taken)
    ends = {p for t, pages in zip(found.tables, own, strict=True) for p in t[len(pages) :]}
    assert ends
    assert not ends & set(taken)
    assert max(max(t) for t in found.tables) < found.slots // 4


def test_pages_are_anywhere_and_not_one_behind_the_other() -> None:
    for pages in used(paged(), 3):
        assert len(pages) < 3 or any(b != a + 1 for a, b in pairwise(pages))
    assert paged() != place(LENGTHS, Layout(page=4, slack=3), seed=1)


@pytest.mark.parametrize(
    ("batch", "starts", "slots"),
    [("packed", (0, 11, 16), 32), ("left", (5, 27, 32), 48), ("right", (0, 16, 32), 48)],
    ids=["packed", "left", "right"],
)
def test_sequences_lie_apart_by_their_slack(batch: Any, starts: Any, slots: int) -> None:
    assert place(LENGTHS, Layout(batch=batch, slack=2), seed=0) == Contiguous(slots, starts)


def test_a_ring_holds_so_many_positions() -> None:
    region = Region([20], Layout(), 0, window=5, ring=8)
    oldest = []
    for length in (7, 8, 9, 20):
        region.filled_to(0, length)
        oldest.append(region.oldest[0])
    assert oldest == [0, 0, 1, 12]
    assert [region.needed_at(n) for n in (3, 4, 5, 20)] == [0, 0, 1, 16]
    assert region.slot(0, 8) == region.slot(0, 0)
    assert region.slot(0, 7) == region.slot(0, 0) + 7
    region.reset()
    assert region.oldest == [0]


@pytest.mark.parametrize(("tokens", "shared"), [(3, 0), (4, 4), (7, 4), (8, 8)])
def test_only_whole_pages_are_shared(tokens: int, shared: int) -> None:
    region = Region([12, 12], Layout(page=4), 0)
    assert region.share_pages(1, 0, tokens) == shared == region.shared[1]
    same = [region.slot(1, p) == region.slot(0, p) for p in range(12)]
    assert same == [p < shared for p in range(12)]
    region.reset()
    assert region.shared == [0, 0]
    assert region.slot(1, 0) != region.slot(0, 0)


# To the position: what a session does and what it refuses


def filled(length: int, **layout: Any) -> Any:
    """A session that has computed ``length`` positions of 12."""
    session = decoder(**layout.pop("shape", {})).session(*one(12, **layout))
    list(session.forward((span(0, length),), [tokens("a", length)]))
    return session


def ringed(length: int) -> Any:
    session = filled(
        4, chunk=4, shape={"ring": True, "sliding_window": 5, "layer_types": ("sliding",)}
    )
    for start in range(4, length, 4):
        stop = min(start + 4, length)
        list(session.forward((span(start, stop),), [tokens("a", 12)[start:stop]]))
    return session


def donated() -> Any:
    """Sequence 1 has 4 positions in a page of sequence 0, and 2 of its own."""
    members = (Member("a", 12), Member("b", 12, like="a", shared=6))
    session = decoder().session(members, Layout(page=4))
    list(session.forward((span(0, 8),), [tokens("a", 8)]))
    session.adopt(1, 0, 6)
    return session


def longer(session: Any) -> None:
    session.forward((span(4, 9),), [tokens("a", 9)[4:9]]).__next__()


EDGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "a slot behind a sequence": (
        lambda: filled(4),
        lambda s: s.cache().slots(0, 10, 12),
        lambda s: s.cache().slots(0, 11, 13),
        "has 12 cache slots, asked for 11..13",
    ),
    "a step longer than a ring's chunk": (
        lambda: ringed(4),
        lambda s: list(s.forward((span(4, 8),), [tokens("a", 8)[4:8]])),
        longer,
        "adds 5 tokens",
    ),
    "a cut into a donor's page": (
        donated,
        lambda s: s.cache().truncate(1, 4),
        lambda s: s.cache().truncate(1, 3),
        "the first 4 lie in pages of another",
    ),
    "a cut behind what a ring has lost": (
        lambda: ringed(12),
        lambda s: s.cache().truncate(0, 8),
        lambda s: s.cache().truncate(0, 7),
        "its rings hold those from 4 on, and the next query sees 3",
    ),
    "a cut to more than there is": (
        lambda: filled(4),
        lambda s: s.cache().truncate(0, 4),
        lambda s: s.cache().truncate(0, 5),
        "holds 4 positions; it cannot be cut to 5",
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_the_last_that_can_be_done_and_the_first_that_cannot(name: str) -> None:
    make, right, wrong, words = EDGES[name]
    right(make())
    with pytest.raises(SubjectError, match=words):
        wrong(make())


@pytest.mark.parametrize("part", [0, 1], ids=["k", "v"])
def test_a_cut_leaves_poison_from_there_on(part: int) -> None:
    session = filled(6)
    cache = session.cache()
    where = torch.tensor(cache.slots(0, 0, 12))
    cache.truncate(0, 4)
    held = (cache.k[0], cache.v[0])[part].get(where).codes
    assert held[:4].isfinite().all()
    assert held[4:].isnan().all()
    assert cache.live(0, 0) == range(4)


def test_a_ring_lives_from_its_oldest_position() -> None:
    session = ringed(12)
    assert session.cache().live(0, 0) == range(4, 12)


# What ran, told by the subject


def test_a_copy_on_other_kernels_tells_its_own_and_not_the_originals() -> None:
    subject = decoder().with_attention(FIXED_ORDER)
    subject.backends = Backends("sdpa")  # asked for; its kernels are this project's
    copied, which = subject.with_attention(FIXED_ORDER), plan("decode", prompts(3, generate=2))
    play(copied.session(which.members, which.layout), which)
    assert copied.describe()["used"]["attention"] == "fixed-order"
    assert subject.describe()["used"]["attention"] is None


def test_no_page_lies_right_behind_the_one_before_it() -> None:
    """Over seeds of which many would shuffle two pages of a sequence into their order."""
    for seed in range(20):
        found = place([9, 7], Layout(page=2), seed)
        assert isinstance(found, Paged)
        for table, pages in zip(found.tables, (6, 5), strict=True):
            assert all(b != a + 1 for a, b in pairwise(table[:pages]))
